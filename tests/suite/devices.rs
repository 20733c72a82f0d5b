//! What other devices than the processor compute, against the same float64 reference values.

use super::oracle::{
    Expected, FAMILIES, attention, causal, chunks, close, greedy, load_as, metrics, slack, states,
};
use entroscope::lens::Lens;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::{DeviceChoice, LoadOptions, Model, Placement};
use entroscope::session::{Job, Prompt};

/// The device that `ENTROSCOPE_TEST_DEVICE` names; without it the tensor operations that other devices run, on the
/// processor, over three places and in tiles of the vocabulary that leave a short one.
pub(crate) fn elsewhere() -> Placement {
    match std::env::var("ENTROSCOPE_TEST_DEVICE") {
        Ok(device) => device.parse::<DeviceChoice>().unwrap().open().unwrap(),
        Err(_) => Placement::of_tensor_operations(3, 96),
    }
}

fn load(family: &str) -> Model {
    let placement = elsewhere();
    assert!(!placement.is_exact(), "the kernels have tests of their own");
    let options = LoadOptions {
        placement: Some(placement),
        ..LoadOptions::default()
    };
    load_as(family, &options)
}

#[test]
fn every_metric_equals_the_float64_reference() {
    for family in FAMILIES {
        metrics(family, &load(family), &Expected::load(family));
    }
}

#[test]
fn attention_equals_the_reference() {
    for family in FAMILIES {
        attention(family, &load(family), &Expected::load(family));
    }
}

#[test]
fn states_and_logits_equal_the_reference() {
    for family in FAMILIES {
        states(family, &load(family), &Expected::load(family));
    }
}

#[test]
fn greedy_tokens_equal_the_reference() {
    for family in causal() {
        greedy(family, &load(family), &Expected::load(family));
    }
}

/// Not to the bit: how many rows are computed together may change the order of a sum there.
#[test]
fn chunks_and_forks_give_the_same() {
    for family in causal() {
        chunks(family, &load(family), &|what, found, expected| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let tolerance = 1e-4 * slack(family);
                close(what, *found, *expected, tolerance, tolerance);
            }
        });
    }
}

/// A token whose successor becomes known later has the cells of one whose successor was known, and the sampler's logits are
/// the last row's.
#[test]
fn opened_tokens_read_like_known_ones() {
    for family in ["llama", "gemma2", "phi", "mamba", "qwen2_bf16_sharded"] {
        let (model, expected) = (load(family), Expected::load(family));
        let (decoder, prompt) = (model.decoder(), &expected.prompts[0]);
        let taps = Taps {
            states: true,
            attention: false,
        };
        let mut rows = [Row::new(prompt, None)];
        let traced = decoder.forward(&mut rows, taps).unwrap();
        let lens = Lens::new(Job::new(Prompt::Ids(vec![0]), 0).lens);
        let all = 0..prompt.len();
        let targets: Vec<Option<u32>> = all.clone().map(|i| prompt.get(i + 1).copied()).collect();
        let known = lens.cells(decoder, &traced, all.clone(), &targets).unwrap();
        let opened = lens.open(decoder, &traced, all.clone()).unwrap();
        let later = lens.read(&opened, &targets).unwrap();
        assert_eq!(known.len(), later.len());
        let mut ranked = 0;
        for (token, (known, later)) in known.iter().zip(&later).enumerate() {
            for (i, (a, b)) in known.values.iter().zip(&later.values).enumerate() {
                let what = format!("{family} token {token} value {i}");
                assert_eq!(a.is_nan(), b.is_nan(), "{what}");
                if !a.is_nan() {
                    close(&what, *a, *b, 1e-5, 1e-5);
                    ranked += 1;
                }
            }
            let logits = opened.final_logits(token);
            assert_eq!(logits.len(), model.card().vocab);
            let best = (0..logits.len())
                .rev()
                .max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            let top = later.top[later.top.len() - 5].id as usize;
            assert_eq!(Some(top), best, "{family} token {token}");
        }
        assert!(ranked > 0);
    }
}

//! What other devices than the processor compute, against the same float64 reference values.

use super::compare::{compared, job};
use super::oracle::{
    Expected, FAMILIES, attention, causal, chunks, close, greedy, load_as, metrics, slack, states,
};
use entroscope::lens::Lens;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::{DeviceChoice, LoadOptions, Model, Placement};
use entroscope::session::{Job, Prompt, Sweep, Swept};
use entroscope::trace::Pairing;
use std::collections::BTreeMap;

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

/// How far a pushed state's distribution is from the plain one's, of two rows and of many.
#[test]
fn divergences_equal_those_of_the_processor() {
    for family in [
        "llama",
        "gemma2",
        "gpt2",
        "mamba",
        "bert",
        "phi",
        "qwen2_bf16_sharded",
    ] {
        let (there, here) = (load(family), load_as(family, &LoadOptions::default()));
        // A text that is given: what is drawn may hang on a rounding.
        let mut job = job(&here, Prompt::Ids((5..35).collect()), 0, 1.0);
        job.read_last = true;
        let tolerance = 1e-4 * slack(family);
        let of = |model: &Model, strength: f64| -> BTreeMap<(usize, usize), f32> {
            let mut job = job.clone();
            job.steering = job.steering.scaled(strength).unwrap();
            let (record, _) = compared(model, &job, Pairing::Locked);
            let difference = record.difference().unwrap();
            let cells = difference.positions().flat_map(|position| {
                (0..difference.states()).map(move |layer| {
                    let kl = difference.divergence(layer, position).unwrap();
                    ((layer, position), kl)
                })
            });
            cells.collect()
        };
        let (found, expected) = (of(&there, 0.5), of(&here, 0.5));
        assert_eq!(found.len(), 30 * (here.card().blocks + 1), "{family}");
        assert!(found.keys().eq(expected.keys()));
        for (cell, kl) in &expected {
            close(
                &format!("{family} {cell:?}"),
                found[cell],
                *kl,
                tolerance,
                tolerance,
            );
        }
        let largest = expected.values().copied().fold(0.0, f32::max);
        assert!(largest > 0.01, "{family}: {largest}");

        let mut swept = 0;
        let strengths = "-0.5..0.5/3".parse().unwrap();
        let mut sweep = Sweep::start(&there, job.clone(), &strengths, &mut |_| {}).unwrap();
        let (less, more) = (of(&here, -0.5), &expected);
        let mut heard = |event| {
            let Swept::Cells {
                strength,
                position,
                cells,
            } = event
            else {
                return;
            };
            for (layer, kl) in cells.divergence.as_ref().unwrap().iter().enumerate() {
                let expected = match strength {
                    0 => less[&(layer, position)],
                    1 => 0.0,
                    _ => more[&(layer, position)],
                };
                let what = format!("{family} strength {strength} {layer} {position}");
                close(&what, *kl, expected, tolerance, tolerance);
                swept += 1;
            }
        };
        while sweep.advance(&there, &mut heard).unwrap().is_none() {}
        assert_eq!(swept, 3 * expected.len(), "{family}");
    }
}

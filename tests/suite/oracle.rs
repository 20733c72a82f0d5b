//! The decoder and the lens against float64 reference values of tiny checkpoints (`tests/fixtures`).

use candle_core::{Device, Tensor};
use entroscope::model::cache::State;
use entroscope::model::config::DecoderConfig;
use entroscope::model::decoder::{Row, Taps, Traced};
use entroscope::model::safetensors::Safetensors;
use entroscope::model::{Decoder, Intervention, LoadOptions, Model};
use entroscope::session::{self, Event, Job, Prompt, Recorder};
use entroscope::trace::{Grid, Record};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Every checkpoint of `tests/fixtures`, one or more for each family.
pub(crate) const FAMILIES: [&str; 28] = [
    "bert",
    "bert_hub",
    "bloom",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_vl",
    "gpt2",
    "gpt2_hub",
    "gpt_neox",
    "lfm2",
    "llama",
    "llama_tied",
    "mamba",
    "mamba2",
    "mistral",
    "mllama",
    "mllama_vl",
    "olmo2",
    "opt",
    "phi",
    "phi3",
    "phi3_longrope",
    "qwen2",
    "qwen2_bf16_sharded",
    "qwen3",
    "smollm3",
    "zamba2",
];

/// The families that read from left to right and so can remember.
pub(crate) fn causal() -> impl Iterator<Item = &'static str> {
    FAMILIES.into_iter().filter(|f| !f.starts_with("bert"))
}

/// How much wider the tolerances of a family are: Zamba 2's gated norms amplify rounding.
pub(crate) fn slack(family: &str) -> f32 {
    if family == "zamba2" { 10.0 } else { 1.0 }
}

pub(crate) fn folder(family: &str) -> PathBuf {
    // A binary that was built elsewhere is told at run time.
    let root = std::env::var_os("CARGO_MANIFEST_DIR");
    root.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
        .join("tests/fixtures")
        .join(family)
}

pub(crate) struct Expected {
    tensors: HashMap<String, Tensor>,
    pub(crate) prompts: Vec<Vec<u32>>,
    /// Blocks with attention, in order.
    attention: Vec<usize>,
}

impl Expected {
    pub(crate) fn load(family: &str) -> Self {
        let folder = folder(family);
        let tensors =
            candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu)
                .unwrap();
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let prompts = json["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| {
                let ids = p["token_ids"].as_array().unwrap();
                ids.iter().map(|i| i.as_u64().unwrap() as u32).collect()
            })
            .collect();
        let attention = json["attention_layers"].as_array();
        let attention = attention.into_iter().flatten();
        Self {
            tensors,
            prompts,
            attention: attention.map(|b| b.as_u64().unwrap() as usize).collect(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Vec<f32> {
        self.tensors[name]
            .to_dtype(candle_core::DType::F32)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    }
}

fn load(family: &str) -> Model {
    load_as(family, &LoadOptions::default())
}

pub(crate) fn load_as(family: &str, options: &LoadOptions) -> Model {
    let reference = folder(family).display().to_string();
    Model::load(&reference, options, &mut |_, _, _| {}).unwrap()
}

fn record(model: &Model, job: &Job) -> Record {
    let mut recorder = Recorder::new(model.card().clone(), job);
    session::run(model, job, &mut |event: Event| {
        recorder.apply(&event);
        ControlFlow::Continue(())
    })
    .unwrap();
    recorder.into_record()
}

fn job(prompt: &[u32], new: usize) -> Job {
    let mut job = Job::new(Prompt::Ids(prompt.to_vec()), new);
    job.attention = true;
    job.attention_rows = true;
    job.ignore_eos = true;
    job
}

/// `|found − expected| ≤ absolute + relative · |expected|`, with NaN only where NaN is expected.
pub(crate) fn close(what: &str, found: f32, expected: f32, absolute: f32, relative: f32) {
    assert!(
        (found - expected).abs() <= absolute + relative * expected.abs(),
        "{what}: found {found}, expected {expected}"
    );
}

fn grid(record: &Record) -> &Grid {
    &record.branches[0].1
}

#[test]
fn every_metric_equals_the_float64_reference() {
    for family in FAMILIES {
        metrics(family, &load(family), &Expected::load(family));
    }
}

/// Hold every cell of every metric against the reference values of `family`.
pub(crate) fn metrics(family: &str, model: &Model, expected: &Expected) {
    for (i, prompt) in expected.prompts.iter().enumerate() {
        let record = record(model, &job(prompt, 0));
        let (grid, positions) = (grid(&record), prompt.len());
        let resid = expected.get(&format!("p{i}.resid"));
        let mut compared = 0;
        for (column, tolerance, relative) in [
            ("entropy", 1e-4, 0.0),
            ("varentropy", 1e-3, 0.0),
            ("prob_margin", 1e-4, 0.0),
            ("logit_margin", 4e-4, 0.0),
            ("perplexity", 0.0, 2e-4),
            ("kl_uniform", 1e-4, 0.0),
            ("kl_final", 1e-4, 0.0),
            ("renyi_0.5", 1e-4, 0.0),
            ("renyi_2", 1e-4, 0.0),
            ("renyi_5", 1e-4, 0.0),
            ("l1", 0.0, 5e-5),
            ("l2", 0.0, 5e-5),
            ("l0", 0.0, 0.0),
            ("hoyer", 1e-5, 0.0),
            ("topk_energy", 1e-5, 0.0),
            ("effective_rank_abs", 1e-5, 0.0),
            ("effective_rank_sq", 1e-5, 0.0),
        ] {
            let values = expected.get(&format!("p{i}.{column}"));
            let name = if column == "topk_energy" {
                "topk_energy_10"
            } else {
                column
            };
            let metric = record.schema.find(name).unwrap();
            for layer in 0..grid.states() {
                for position in 0..positions {
                    let found = grid.value(layer, position, metric).unwrap();
                    let value = values[layer * positions + position];
                    let what = format!("{family} p{i} {column} layer {layer} at {position}");
                    let slack = slack(family);
                    let tolerance = if column == "l0" {
                        // A number that lies on the threshold may count or not.
                        let d = model.card().d_model;
                        let h = &resid[(layer * positions + position) * d..][..d];
                        let near = |h: &&f32| (h.abs() - 1e-3).abs() < 2e-5;
                        h.iter().filter(near).count() as f32
                    } else {
                        tolerance * slack
                    };
                    close(&what, found, value, tolerance, relative * slack);
                    compared += 1;
                }
            }
        }
        for (column, tolerance) in [("surprisal", 1e-4), ("next_rank", 0.0)] {
            if !model.card().causal {
                let metric = record.schema.find(column).unwrap();
                assert!((0..positions).all(|p| grid.value(0, p, metric).is_none()));
                compared += grid.states() * (positions - 1);
                continue;
            }
            let values = expected.get(&format!("p{i}.{column}"));
            let metric = record.schema.find(column).unwrap();
            for layer in 0..grid.states() {
                for position in 0..positions - 1 {
                    let found = grid.value(layer, position, metric).unwrap();
                    let value = values[layer * (positions - 1) + position];
                    let what = format!("{family} p{i} {column} layer {layer} at {position}");
                    close(&what, found, value, tolerance * slack(family), 0.0);
                    compared += 1;
                }
                assert_eq!(grid.value(layer, positions - 1, metric), None);
            }
        }
        assert_eq!(compared, grid.states() * (19 * positions - 2));
        let ids = expected.get(&format!("p{i}.top5_ids"));
        let probs = expected.get(&format!("p{i}.top5_probs"));
        for layer in 0..grid.states() {
            for position in 0..positions {
                let top = grid.top(layer, position);
                assert_eq!(top.len(), 5);
                for (k, candidate) in top.iter().enumerate() {
                    let at = (layer * positions + position) * 5 + k;
                    assert_eq!(candidate.id as f32, ids[at], "{family} p{i} top {k}");
                    let tolerance = 1e-4 * slack(family);
                    close("top5_probs", candidate.prob, probs[at], tolerance, 0.0);
                }
            }
        }
    }
}

#[test]
fn attention_rows_and_their_entropies_equal_the_reference() {
    for family in FAMILIES {
        attention(family, &load(family), &Expected::load(family));
    }
}

/// Hold the attention rows and what is made of them against the reference values of `family`.
pub(crate) fn attention(family: &str, model: &Model, expected: &Expected) {
    for (i, prompt) in expected.prompts.iter().enumerate() {
        let record = record(model, &job(prompt, 0));
        let (n, heads) = (prompt.len(), model.card().heads);
        if expected.attention.is_empty() {
            assert!((0..n).all(|p| grid(&record).cells(p).unwrap().attention.is_none()));
            continue;
        }
        let rows = expected.get(&format!("p{i}.attn"));
        let entropy = expected.get(&format!("p{i}.attn_entropy"));
        let varentropy = expected.get(&format!("p{i}.attn_varentropy"));
        let slack = slack(family);
        for position in 0..n {
            let cells = grid(&record).cells(position).unwrap();
            let attention = cells.attention.as_ref().unwrap();
            let kept = attention.rows.as_ref().unwrap();
            let shown = if model.card().causal { position + 1 } else { n };
            assert_eq!(kept.len(), model.card().blocks * heads * shown);
            for block in 0..model.card().blocks {
                let Some(nth) = expected.attention.iter().position(|b| *b == block) else {
                    let of_block = block * heads..(block + 1) * heads;
                    assert!(attention.entropy[of_block].iter().all(|v| v.is_nan()));
                    assert!(attention.mean[block].is_nan());
                    let of_block = block * heads * shown..(block + 1) * heads * shown;
                    assert!(kept[of_block].iter().all(|v| v.is_nan()));
                    continue;
                };
                // A key that the reference gives exactly nothing was masked out.
                let of_head = |head: usize| &rows[((nth * heads + head) * n + position) * n..];
                let visible = (0..n).filter(|k| of_head(0)[*k] > 0.0).count();
                for head in 0..heads {
                    let at = block * heads + head;
                    let reference = (nth * heads + head) * n + position;
                    let found = attention.entropy[at];
                    close("attn_entropy", found, entropy[reference], 1e-4 * slack, 0.0);
                    let found = attention.varentropy[at];
                    let value = varentropy[reference];
                    close("attn_varentropy", found, value, 1e-3 * slack, 0.0);
                    for key in 0..shown {
                        let found = kept[at * shown + key];
                        let value = of_head(head)[key];
                        close(&format!("{family} attn"), found, value, 1e-4 * slack, 0.0);
                        assert_eq!(found == 0.0, value == 0.0, "{family} window");
                    }
                }
                // What is made of the heads, worked out again from the rows.
                let row = |head: usize| &kept[(block * heads + head) * shown..][..shown];
                let wide: Vec<f64> = (0..heads)
                    .map(|h| f64::from(attention.entropy[block * heads + h]))
                    .collect();
                for (head, entropy) in wide.iter().enumerate() {
                    let norm = attention.entropy_norm[block * heads + head];
                    assert_eq!(norm.is_nan(), visible == 1);
                    if visible > 1 {
                        let expected = (entropy / (visible as f64).ln()) as f32;
                        close("attn_entropy_norm", norm, expected, 1e-5, 0.0);
                    }
                }
                let count = heads as f64;
                let mean = wide.iter().sum::<f64>() / count;
                let spread = wide.iter().map(|h| (h - mean).powi(2)).sum::<f64>() / count;
                let mut apart = 0.0;
                for key in 0..shown {
                    let at = |h: usize| f64::from(row(h)[key]);
                    let mean = (0..heads).map(at).sum::<f64>() / count;
                    apart += (0..heads).map(|h| (at(h) - mean).abs()).sum::<f64>();
                }
                let apart = apart / (count * visible as f64);
                let found = attention.mean[block];
                close("attn_entropy_mean", found, mean as f32, 1e-5, 0.0);
                let found = attention.head_var[block];
                close("attn_head_var", found, spread as f32, 1e-5, 0.0);
                let found = attention.disagreement[block];
                close("attn_disagreement", found, apart as f32, 1e-6, 0.0);
            }
        }
    }
}

#[test]
fn residual_states_and_final_logits_equal_the_reference() {
    for family in FAMILIES {
        states(family, &load(family), &Expected::load(family));
    }
}

/// Hold the residual states and the final logits against the reference values of `family`.
pub(crate) fn states(family: &str, model: &Model, expected: &Expected) {
    for (i, prompt) in expected.prompts.iter().enumerate() {
        let taps = Taps {
            states: true,
            attention: false,
        };
        let mut rows = [Row::new(prompt, None)];
        let traced = model.decoder().forward(&mut rows, taps).unwrap();
        let resid = expected.get(&format!("p{i}.resid"));
        let found: Vec<f32> = traced
            .states
            .iter()
            .flat_map(|s| s.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect();
        assert_eq!(found.len(), resid.len());
        for (found, resid) in found.iter().zip(&resid) {
            let slack = slack(family);
            close(
                &format!("{family} resid"),
                *found,
                *resid,
                1e-4 * slack,
                1e-5 * slack,
            );
        }
        let last = traced.last.narrow(0, prompt.len() - 4, 4).unwrap();
        let logits = model.decoder().final_norm(&last).unwrap();
        let logits = model.decoder().head(&logits).unwrap();
        let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(logits.len(), 4 * model.card().vocab);
        for (found, value) in logits
            .iter()
            .zip(expected.get(&format!("p{i}.final_logits")))
        {
            let logits = if family == "zamba2" { 1e-3 } else { 2e-4 };
            close(
                &format!("{family} final_logits"),
                *found,
                value,
                logits,
                0.0,
            );
        }
    }
}

#[test]
fn steered_logits_equal_the_reference() {
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        // The output of block 1 is state 2.
        let vector: Vec<f32> = expected.get("steer.v").iter().map(|v| 2.0 * v).collect();
        let steer = |vector: Vec<f32>| [Intervention::add(2, 0..usize::MAX, vector.into())];
        let logits = |traced: &Traced, tokens: usize| -> Vec<f32> {
            let last = traced.last.narrow(0, tokens - 4, 4).unwrap();
            let normed = model.decoder().final_norm(&last).unwrap();
            let logits = model.decoder().head(&normed).unwrap();
            logits.flatten_all().unwrap().to_vec1().unwrap()
        };
        for (i, prompt) in expected.prompts.iter().enumerate() {
            let read = |interventions: &[Intervention]| {
                let mut rows = [Row::new(prompt, None).steered(interventions)];
                let traced = model.decoder().forward(&mut rows, Taps::default()).unwrap();
                logits(&traced, prompt.len())
            };
            let steered = expected.get(&format!("p{i}.steered_logits"));
            let tolerance = if family == "zamba2" { 1e-3 } else { 2e-4 };
            for (found, value) in read(&steer(vector.clone())).iter().zip(&steered) {
                close(&format!("{family} steered"), *found, *value, tolerance, 0.0);
            }
            let nothing = vec![0.0; vector.len()];
            assert_eq!(read(&steer(nothing)), read(&[]), "{family} strength 0");
            if !model.card().causal {
                continue;
            }
            // Beside an unsteered row, and token by token: each keeps to itself.
            let plan = steer(vector.clone());
            let (mut a, mut b) = (model.decoder().state(), model.decoder().state());
            a.announce(prompt.len());
            b.announce(prompt.len());
            let mut both = Vec::new();
            for token in prompt.chunks(1) {
                let mut rows = [
                    Row::new(token, Some(&mut a)),
                    Row::new(token, Some(&mut b)).steered(&plan),
                ];
                let traced = model.decoder().forward(&mut rows, Taps::default()).unwrap();
                both.push(traced.last);
            }
            let branch = |row: usize| {
                let last: Vec<Tensor> = both.iter().map(|t| t.narrow(0, row, 1).unwrap()).collect();
                Traced {
                    last: Tensor::cat(&last, 0).unwrap(),
                    states: Vec::new(),
                    attention: Vec::new(),
                }
            };
            assert_eq!(logits(&branch(0), prompt.len()), read(&[]), "{family}");
            assert_eq!(logits(&branch(1), prompt.len()), read(&plan), "{family}");
        }
    }
}

#[test]
fn a_long_text_is_read_again_where_its_rotary_frequencies_change() {
    // The reference reads everything anew for every token; ours has a cache that crosses the original context of 20.
    let (model, expected) = (load("phi3_longrope"), Expected::load("phi3_longrope"));
    let prompt = &expected.prompts[0];
    assert!(prompt.len() < 20 && prompt.len() + 12 > 20);
    let decoder = model.decoder();
    let mut state = decoder.state();
    let mut text = prompt.clone();
    let mut unread = prompt.clone();
    for expected in expected.get("p0.greedy_ids") {
        let mut rows = [Row::new(&unread, Some(&mut state))];
        let cached = decoder.forward(&mut rows, Taps::default()).unwrap().last;
        let cached = cached.narrow(0, unread.len() - 1, 1).unwrap();
        let whole = decoder
            .forward(&mut [Row::new(&text, None)], Taps::default())
            .unwrap();
        let whole = whole.last.narrow(0, text.len() - 1, 1).unwrap();
        let bits = |t: &Tensor| -> Vec<f32> { t.flatten_all().unwrap().to_vec1().unwrap() };
        assert_eq!(bits(&cached), bits(&whole), "at {} tokens", text.len());
        text.push(expected as u32);
        unread = vec![expected as u32];
    }
    // Back before the crossing, the short frequencies hold again.
    state.truncate(prompt.len());
    let mut rows = [Row::new(
        &text[prompt.len()..=prompt.len()],
        Some(&mut state),
    )];
    let again = decoder.forward(&mut rows, Taps::default()).unwrap().last;
    let short = decoder
        .forward(
            &mut [Row::new(&text[..=prompt.len()], None)],
            Taps::default(),
        )
        .unwrap();
    let short = short.last.narrow(0, prompt.len(), 1).unwrap();
    let bits = |t: &Tensor| -> Vec<f32> { t.flatten_all().unwrap().to_vec1().unwrap() };
    assert_eq!(bits(&again), bits(&short));
}

#[test]
fn greedy_tokens_with_cache_equal_the_uncached_reference() {
    for family in causal() {
        greedy(family, &load(family), &Expected::load(family));
    }
}

/// Hold twelve greedy tokens after each prompt against those of the reference.
pub(crate) fn greedy(family: &str, model: &Model, expected: &Expected) {
    for (i, prompt) in expected.prompts.iter().enumerate() {
        let record = record(model, &job(prompt, 12));
        let drawn: Vec<f32> = grid(&record).tokens()[prompt.len()..]
            .iter()
            .map(|t| t.id as f32)
            .collect();
        assert_eq!(
            drawn,
            expected.get(&format!("p{i}.greedy_ids")),
            "{family} p{i}"
        );
    }
}

/// Bits of every value of every cell that both grids have read.
fn bits(grid: &Grid, positions: std::ops::Range<usize>) -> Vec<u32> {
    positions
        .flat_map(|p| {
            let cells = grid.cells(p).unwrap();
            cells.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn decoding_with_a_cache_equals_reading_the_whole_text_at_once_bit_for_bit() {
    for family in causal() {
        let (model, expected) = (load(family), Expected::load(family));
        let prompt = &expected.prompts[1];
        let generated = record(&model, &job(prompt, 12));
        let text: Vec<u32> = grid(&generated).tokens().iter().map(|t| t.id).collect();
        let read = record(&model, &job(&text, 0));
        let known = 0..text.len() - 1;
        assert_eq!(
            bits(grid(&generated), known.clone()),
            bits(grid(&read), known)
        );
    }
}

#[test]
fn reading_in_chunks_equals_reading_at_once_and_forks_do_not_disturb_each_other() {
    for family in causal() {
        chunks(family, &load(family), &|what, found, expected| {
            assert_eq!(found, expected, "{what}");
        });
    }
}

/// Complains in the given words where what was found is not what was expected.
type Same<'a> = &'a dyn Fn(&str, &[f32], &[f32]);

/// Read a prompt in chunks, after a fork and rewound, and hold it against reading at once.
pub(crate) fn chunks(family: &str, model: &Model, same: Same<'_>) {
    let expected = Expected::load(family);
    let decoder = model.decoder();
    let prompt = &expected.prompts[1];
    let read = |tokens: &[u32], state: Option<&mut State>| -> Vec<f32> {
        let mut rows = [Row::new(tokens, state)];
        let traced = decoder.forward(&mut rows, Taps::default()).unwrap();
        traced.last.flatten_all().unwrap().to_vec1().unwrap()
    };
    let whole = read(prompt, None);
    // Said beforehand, as the engine does, for a family that reads long texts differently from the start.
    let fresh = || {
        let mut state = decoder.state();
        state.announce(prompt.len());
        state
    };
    for size in [1, 3, 7, 16] {
        let mut state = fresh();
        let parts: Vec<f32> = prompt
            .chunks(size)
            .flat_map(|chunk| read(chunk, Some(&mut state)))
            .collect();
        same(&format!("{family} in chunks of {size}"), &parts, &whole);
    }
    // Two branches of one past, read in turn, then one rewound.
    let (past, rest) = prompt.split_at(prompt.len() / 2);
    let mut main = fresh();
    let first = read(past, Some(&mut main));
    let mut other = main.fork().unwrap();
    let noise: Vec<u32> = rest.iter().rev().copied().collect();
    read(&noise, Some(&mut other));
    let second = read(rest, Some(&mut main));
    let both = [first, second].concat();
    same(&format!("{family} after a fork"), &both, &whole);
    other.truncate(past.len());
    other.announce(prompt.len());
    let again = read(rest, Some(&mut other));
    let end = &whole[whole.len() - again.len()..];
    same(&format!("{family} rewound"), &again, end);
}

#[test]
fn rows_of_one_forward_do_not_see_each_other() {
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        let decoder = model.decoder();
        let (a, b) = (&expected.prompts[0], &expected.prompts[1]);
        let alone = |tokens: &[u32]| -> Vec<f32> {
            let mut rows = [Row::new(tokens, None)];
            let traced = decoder.forward(&mut rows, Taps::default()).unwrap();
            traced.last.flatten_all().unwrap().to_vec1().unwrap()
        };
        let (mut state_a, mut state_b) = (decoder.state(), decoder.state());
        let remembers = model.card().causal;
        let mut rows = [
            Row::new(a, remembers.then_some(&mut state_a)),
            Row::new(b, remembers.then_some(&mut state_b)),
        ];
        let traced = decoder.forward(&mut rows, Taps::default()).unwrap();
        let together: Vec<f32> = traced.last.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(together, [alone(a), alone(b)].concat(), "{family}");
    }
}

#[test]
fn rows_of_equal_length_without_memory_do_not_see_each_other_either() {
    let (model, expected) = (load("llama"), Expected::load("llama"));
    let decoder = model.decoder();
    let a: Vec<u32> = expected.prompts[0][..9].to_vec();
    let b: Vec<u32> = expected.prompts[1][..9].to_vec();
    let taps = Taps {
        states: false,
        attention: true,
    };
    let read = |texts: &[&[u32]]| {
        let mut rows: Vec<Row<'_>> = texts.iter().map(|tokens| Row::new(tokens, None)).collect();
        let traced = decoder.forward(&mut rows, taps).unwrap();
        assert!(
            traced
                .attention
                .iter()
                .all(|block| block.as_ref().unwrap().rows.len() == texts.len())
        );
        let last: Vec<f32> = traced.last.flatten_all().unwrap().to_vec1().unwrap();
        last
    };
    assert_eq!(read(&[&a, &b]), [read(&[&a]), read(&[&b])].concat());
    assert!(decoder.forward(&mut [Row::new(&[], None)], taps).is_err());
}

#[test]
fn the_last_lens_row_is_what_the_sampler_draws_from() {
    use entroscope::lens::Lens;
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        let decoder = model.decoder();
        let prompt = &expected.prompts[0];
        let taps = Taps {
            states: true,
            attention: false,
        };
        let mut rows = [Row::new(prompt, None)];
        let traced = decoder.forward(&mut rows, taps).unwrap();
        let lens = Lens::new(Job::new(Prompt::Ids(vec![0]), 0).lens);
        let opened = lens.open(decoder, &traced, 0..prompt.len()).unwrap();
        let plain = decoder
            .head(&decoder.final_norm(&traced.last).unwrap())
            .unwrap();
        let plain: Vec<Vec<f32>> = plain.to_vec2().unwrap();
        for (token, plain) in plain.iter().enumerate() {
            assert_eq!(opened.final_logits(token), plain, "{family} token {token}");
        }
    }
}

#[test]
fn both_config_styles_make_the_same_decoder() {
    for family in FAMILIES {
        let read = |name: &str| {
            let text = std::fs::read_to_string(folder(family).join(name)).unwrap();
            DecoderConfig::from_json(&serde_json::from_str(&text).unwrap()).unwrap()
        };
        assert_eq!(read("config.json"), read("config.v5.json"), "{family}");
        let tensors = Safetensors::open_folder(&folder(family)).unwrap();
        Decoder::load(read("config.v5.json"), &tensors, &Device::Cpu).unwrap();
    }
}

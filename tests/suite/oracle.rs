//! The decoder and the lens against float64 reference values of tiny checkpoints (`tests/fixtures`).

use candle_core::{Device, Tensor};
use entroscope::model::cache::State;
use entroscope::model::config::DecoderConfig;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::safetensors::Safetensors;
use entroscope::model::{Decoder, LoadOptions, Model};
use entroscope::session::{self, Event, Job, Prompt, Recorder};
use entroscope::trace::{Grid, Record};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 4] = ["gpt2", "gpt2_hub", "llama", "llama_tied"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(family)
}

struct Expected {
    tensors: HashMap<String, Tensor>,
    prompts: Vec<Vec<u32>>,
}

impl Expected {
    fn load(family: &str) -> Self {
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
        Self { tensors, prompts }
    }

    fn get(&self, name: &str) -> Vec<f32> {
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
    let reference = folder(family).display().to_string();
    Model::load(&reference, &LoadOptions::default(), &mut |_, _, _| {}).unwrap()
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
fn close(what: &str, found: f32, expected: f32, absolute: f32, relative: f32) {
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
        let (model, expected) = (load(family), Expected::load(family));
        for (i, prompt) in expected.prompts.iter().enumerate() {
            let record = record(&model, &job(prompt, 0));
            let (grid, positions) = (grid(&record), prompt.len());
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
                        close(&what, found, value, tolerance, relative);
                        compared += 1;
                    }
                }
            }
            for (column, tolerance) in [("surprisal", 1e-4), ("next_rank", 0.0)] {
                let values = expected.get(&format!("p{i}.{column}"));
                let metric = record.schema.find(column).unwrap();
                for layer in 0..grid.states() {
                    for position in 0..positions - 1 {
                        let found = grid.value(layer, position, metric).unwrap();
                        let value = values[layer * (positions - 1) + position];
                        let what = format!("{family} p{i} {column} layer {layer} at {position}");
                        close(&what, found, value, tolerance, 0.0);
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
                        close("top5_probs", candidate.prob, probs[at], 1e-4, 0.0);
                    }
                }
            }
        }
    }
}

#[test]
fn attention_rows_and_their_entropies_equal_the_reference() {
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        for (i, prompt) in expected.prompts.iter().enumerate() {
            let record = record(&model, &job(prompt, 0));
            let rows = expected.get(&format!("p{i}.attn"));
            let entropy = expected.get(&format!("p{i}.attn_entropy"));
            let varentropy = expected.get(&format!("p{i}.attn_varentropy"));
            let (n, heads) = (prompt.len(), model.card().heads);
            for position in 0..n {
                let cells = grid(&record).cells(position).unwrap();
                let attention = cells.attention.as_ref().unwrap();
                let kept = attention.rows.as_ref().unwrap();
                for block in 0..model.card().blocks {
                    for head in 0..heads {
                        let at = block * heads + head;
                        let reference = at * n + position;
                        close(
                            "attn_entropy",
                            attention.entropy[at],
                            entropy[reference],
                            1e-4,
                            0.0,
                        );
                        close(
                            "attn_varentropy",
                            attention.varentropy[at],
                            varentropy[reference],
                            1e-3,
                            0.0,
                        );
                        for key in 0..=position {
                            let found = kept[at * (position + 1) + key];
                            close("attn", found, rows[reference * n + key], 1e-4, 0.0);
                        }
                    }
                    // What is made of the heads, worked out again from the rows.
                    let visible = position + 1;
                    let row = |head: usize| &kept[(block * heads + head) * visible..][..visible];
                    let wide: Vec<f64> = (0..heads)
                        .map(|h| f64::from(attention.entropy[block * heads + h]))
                        .collect();
                    for (head, entropy) in wide.iter().enumerate() {
                        let norm = attention.entropy_norm[block * heads + head];
                        assert_eq!(norm.is_nan(), position == 0);
                        if position > 0 {
                            let expected = (entropy / (visible as f64).ln()) as f32;
                            close("attn_entropy_norm", norm, expected, 1e-5, 0.0);
                        }
                    }
                    let n = heads as f64;
                    let mean = wide.iter().sum::<f64>() / n;
                    let spread = wide.iter().map(|h| (h - mean).powi(2)).sum::<f64>() / n;
                    let mut apart = 0.0;
                    for key in 0..visible {
                        let at = |h: usize| f64::from(row(h)[key]);
                        let mean = (0..heads).map(at).sum::<f64>() / n;
                        apart += (0..heads).map(|h| (at(h) - mean).abs()).sum::<f64>();
                    }
                    let apart = apart / (n * visible as f64);
                    close(
                        "attn_entropy_mean",
                        attention.mean[block],
                        mean as f32,
                        1e-5,
                        0.0,
                    );
                    close(
                        "attn_head_var",
                        attention.head_var[block],
                        spread as f32,
                        1e-5,
                        0.0,
                    );
                    let found = attention.disagreement[block];
                    close("attn_disagreement", found, apart as f32, 1e-6, 0.0);
                }
            }
        }
    }
}

#[test]
fn residual_states_and_final_logits_equal_the_reference() {
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        for (i, prompt) in expected.prompts.iter().enumerate() {
            let taps = Taps {
                states: true,
                attention: false,
            };
            let mut rows = [Row {
                tokens: prompt,
                state: None,
            }];
            let traced = model.decoder().forward(&mut rows, taps).unwrap();
            let resid = expected.get(&format!("p{i}.resid"));
            let found: Vec<f32> = traced
                .states
                .iter()
                .flat_map(|s| s.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .collect();
            assert_eq!(found.len(), resid.len());
            for (found, resid) in found.iter().zip(&resid) {
                close("resid", *found, *resid, 1e-4, 1e-5);
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
                close("final_logits", *found, value, 2e-4, 0.0);
            }
        }
    }
}

#[test]
fn greedy_tokens_with_cache_equal_the_uncached_reference() {
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        for (i, prompt) in expected.prompts.iter().enumerate() {
            let record = record(&model, &job(prompt, 12));
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
    for family in FAMILIES {
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
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        let decoder = model.decoder();
        let prompt = &expected.prompts[1];
        let read = |tokens: &[u32], state: Option<&mut State>| -> Vec<f32> {
            let mut rows = [Row { tokens, state }];
            let traced = decoder.forward(&mut rows, Taps::default()).unwrap();
            traced.last.flatten_all().unwrap().to_vec1().unwrap()
        };
        let whole = read(prompt, None);
        for size in [1, 3, 7, 16] {
            let mut state = decoder.state();
            let parts: Vec<f32> = prompt
                .chunks(size)
                .flat_map(|chunk| read(chunk, Some(&mut state)))
                .collect();
            assert_eq!(parts, whole, "{family} in chunks of {size}");
        }
        // Two branches of one past, read in turn, then one rewound.
        let (past, rest) = prompt.split_at(prompt.len() / 2);
        let mut main = decoder.state();
        let first = read(past, Some(&mut main));
        let mut other = main.fork().unwrap();
        let noise: Vec<u32> = rest.iter().rev().copied().collect();
        read(&noise, Some(&mut other));
        let second = read(rest, Some(&mut main));
        assert_eq!([first, second].concat(), whole, "{family} after a fork");
        other.truncate(past.len());
        let again = read(rest, Some(&mut other));
        assert_eq!(
            again,
            whole[whole.len() - again.len()..],
            "{family} rewound"
        );
    }
}

#[test]
fn rows_of_one_forward_do_not_see_each_other() {
    for family in FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        let decoder = model.decoder();
        let (a, b) = (&expected.prompts[0], &expected.prompts[1]);
        let alone = |tokens: &[u32]| -> Vec<f32> {
            let mut rows = [Row {
                tokens,
                state: None,
            }];
            let traced = decoder.forward(&mut rows, Taps::default()).unwrap();
            traced.last.flatten_all().unwrap().to_vec1().unwrap()
        };
        let (mut state_a, mut state_b) = (decoder.state(), decoder.state());
        let mut rows = [
            Row {
                tokens: a,
                state: Some(&mut state_a),
            },
            Row {
                tokens: b,
                state: Some(&mut state_b),
            },
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
        let mut rows: Vec<Row<'_>> = texts
            .iter()
            .map(|tokens| Row {
                tokens,
                state: None,
            })
            .collect();
        let traced = decoder.forward(&mut rows, taps).unwrap();
        assert!(
            traced
                .attention
                .iter()
                .all(|block| block.len() == texts.len())
        );
        let last: Vec<f32> = traced.last.flatten_all().unwrap().to_vec1().unwrap();
        last
    };
    assert_eq!(read(&[&a, &b]), [read(&[&a]), read(&[&b])].concat());
    assert!(
        decoder
            .forward(
                &mut [Row {
                    tokens: &[],
                    state: None
                }],
                taps
            )
            .is_err()
    );
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
        let mut rows = [Row {
            tokens: prompt,
            state: None,
        }];
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

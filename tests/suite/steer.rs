//! Control vectors inside the forward pass: what a plan changes, and what it leaves alone to the bit.

use super::oracle::{self, Expected};
use candle_core::Tensor;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::{Intervention, LoadOptions, Model};
use entroscope::stats;
use entroscope::steer::{ControlVector, Effect, Format, Plan, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn load(family: &str) -> Model {
    let reference = match family {
        "demo" => family.to_owned(),
        _ => oracle::folder(family).display().to_string(),
    };
    Model::load(&reference, &LoadOptions::default(), &mut |_, _, _| {}).unwrap()
}

pub(crate) fn vector(of: &[(usize, Vec<f32>)]) -> ControlVector {
    ControlVector::new(of.iter().cloned().collect::<BTreeMap<_, _>>()).unwrap()
}

/// A vector that is different everywhere.
fn wave(layers: std::ops::RangeInclusive<usize>, width: usize) -> ControlVector {
    let direction = |layer: usize| {
        let x = |i: usize| ((layer * width + i) as f32).sin();
        (layer, (0..width).map(x).collect())
    };
    ControlVector::new(layers.map(direction).collect()).unwrap()
}

pub(crate) fn spec(text: &str) -> Spec {
    text.parse().unwrap()
}

fn plan(model: &Model, parts: &[(&str, &ControlVector)]) -> Plan {
    let mut plan = Plan::default();
    for (text, vector) in parts {
        plan.push(&spec(text), vector, model.card()).unwrap();
    }
    plan
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// All states of a text, `[layer][token][d_model]`, bit by bit.
fn states(model: &Model, text: &[u32], interventions: &[Intervention]) -> Vec<Vec<Vec<u32>>> {
    let taps = Taps {
        states: true,
        attention: false,
    };
    let mut rows = [Row::new(text, None).steered(interventions)];
    let traced = model.decoder().forward(&mut rows, taps).unwrap();
    let rows = |state: &Tensor| -> Vec<Vec<u32>> {
        let rows: Vec<Vec<f32>> = state.to_vec2().unwrap();
        rows.iter()
            .map(|row| row.iter().map(|x| x.to_bits()).collect())
            .collect()
    };
    traced.states.iter().map(rows).collect()
}

fn logits(model: &Model, text: &[u32], interventions: &[Intervention]) -> Vec<f32> {
    let mut rows = [Row::new(text, None).steered(interventions)];
    let traced = model.decoder().forward(&mut rows, Taps::default()).unwrap();
    let normed = model.decoder().final_norm(&traced.last).unwrap();
    numbers(&model.decoder().head(&normed).unwrap())
}

#[test]
fn steered_logits_of_every_family_equal_the_reference_through_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for family in oracle::FAMILIES {
        let (model, expected) = (load(family), Expected::load(family));
        // The oracle pushes the output of block 1, which is state 2, with strength 2.
        let direction = expected.get("steer.v");
        let file = folder.path().join(format!("{family}.gguf"));
        let (bytes, dropped) = vector(&[(2, direction)]).to_bytes(Format::Gguf).unwrap();
        assert!(dropped.is_empty());
        std::fs::write(&file, bytes).unwrap();
        let asked = spec(&format!("{},strength=2", file.display()));
        let (plan, _) = Plan::load(&[asked], model.card()).unwrap();
        for (i, prompt) in expected.prompts.iter().enumerate() {
            let found = logits(&model, prompt, &plan.interventions(prompt.len()));
            let steered = expected.get(&format!("p{i}.steered_logits"));
            let tolerance = if family == "zamba2" { 1e-3 } else { 2e-4 };
            for (found, value) in found[found.len() - steered.len()..].iter().zip(&steered) {
                assert!(
                    (found - value).abs() <= tolerance,
                    "{family}: {found} {value}"
                );
            }
        }
    }
}

#[test]
fn strength_zero_is_the_baseline_to_the_bit() {
    for family in ["llama", "gpt2", "bert", "mamba2"] {
        let model = load(family);
        let (blocks, width) = (model.card().blocks, model.card().d_model);
        let text: Vec<u32> = (5..15).collect();
        let vector = wave(1..=blocks, width);
        let baseline = states(&model, &text, &[]);
        for nothing in ["v.gguf,strength=0", "v.gguf,strength=0,keep-norm"] {
            let plan = plan(&model, &[(nothing, &vector)]);
            assert!(plan.interventions(text.len()).is_empty());
        }
        // No operation either where weights are zero, a vector is zero, or a block is scaled by one.
        let zero = vector.scaled(0.0);
        let weightless = plan(&model, &[("v.gguf,token-weights=0,keep-norm", &vector)]);
        for plan in [plan(&model, &[("v.gguf", &zero)]), weightless] {
            assert_eq!(states(&model, &text, &plan.interventions(10)), baseline);
        }
        let (plan, _) = Plan::load(&[spec("scale=1")], model.card()).unwrap();
        assert_eq!(states(&model, &text, &plan.interventions(10)), baseline);
        // And with strength there is one.
        let plan = self::plan(&model, &[("v.gguf,strength=1e-3", &vector)]);
        assert_ne!(states(&model, &text, &plan.interventions(10)), baseline);
    }
}

#[test]
fn a_vector_and_its_opposite_cancel() {
    for family in ["llama", "gpt2", "qwen3"] {
        let model = load(family);
        let text: Vec<u32> = (5..25).collect();
        let vector = wave(1..=model.card().blocks, model.card().d_model);
        let both = plan(
            &model,
            &[
                ("v.gguf,strength=0.7", &vector),
                ("v.gguf,strength=-0.7", &vector),
            ],
        );
        let (found, baseline) = (
            logits(&model, &text, &both.interventions(20)),
            logits(&model, &text, &[]),
        );
        for (a, b) in found.iter().zip(&baseline) {
            assert!((a - b).abs() <= 1e-5, "{family}: {a} {b}");
        }
        let sum = vector.plus(&vector.scaled(-1.0)).unwrap();
        let none = plan(&model, &[("v.gguf", &sum)]);
        assert!(none.interventions(20).is_empty());
    }
}

/// Which cells `[layer][token]` differ.
fn changed(a: &[Vec<Vec<u32>>], b: &[Vec<Vec<u32>>]) -> Vec<Vec<usize>> {
    let of = |(a, b): (&Vec<Vec<u32>>, &Vec<Vec<u32>>)| {
        (0..a.len()).filter(|t| a[*t] != b[*t]).collect()
    };
    a.iter().zip(b).map(of).collect()
}

#[test]
fn only_the_named_layers_and_positions_change() {
    let model = load("demo");
    let text: Vec<u32> = (5..17).collect();
    let vector = wave(1..=12, 192);
    let baseline = states(&model, &text, &[]);
    let all: Vec<usize> = (0..12).collect();
    for (asked, first_layer, first, until) in [
        ("v.gguf", 1, 0, 12),
        ("v.gguf,layers=4..9", 4, 0, 12),
        ("v.gguf,layers=12", 12, 0, 12),
        ("v.gguf,layers=12,tokens=prompt", 12, 0, 8),
        ("v.gguf,layers=12,tokens=generated", 12, 8, 12),
        ("v.gguf,layers=12,tokens=from:3", 12, 3, 12),
        ("v.gguf,layers=5,tokens=from:11", 5, 11, 12),
        ("v.gguf,layers=5,tokens=from:99", 5, 12, 12),
    ] {
        let interventions = plan(&model, &[(asked, &vector)]).interventions(8);
        let found = changed(&baseline, &states(&model, &text, &interventions));
        for (layer, found) in found.iter().enumerate() {
            let expected = match layer {
                // What was changed is seen by all that comes later, to the right and above.
                _ if layer >= first_layer && first < until => {
                    let last = if layer == first_layer { until } else { 12 };
                    &all[first..last]
                }
                _ => &[],
            };
            assert_eq!(found, expected, "{asked}, layer {layer}");
        }
        let layers: Vec<usize> = interventions.iter().map(|i| i.layer).collect();
        let last = if asked.contains("layers=4..9") { 9 } else { 12 };
        assert!(layers.iter().all(|l| (first_layer..=last).contains(l)));
    }
    // A middle position alone, counted: its own at that layer, all after it above.
    let at = |positions| {
        let direction: std::sync::Arc<[f32]> = vector.direction(6).unwrap().into();
        [Intervention::add(6, positions, direction)]
    };
    let found = changed(&baseline, &states(&model, &text, &at(4..6)));
    let counts: Vec<usize> = found.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 0, 0, 0, 0, 0, 2, 8, 8, 8, 8, 8, 8]);
}

#[test]
fn norms_are_kept_blocks_are_scaled_and_weights_follow_the_prompt() {
    let model = load("demo");
    let text: Vec<u32> = (5..15).collect();
    let vector = wave(1..=12, 192);
    let baseline = states(&model, &text, &[]);
    let real =
        |bits: &[u32]| -> Vec<f64> { bits.iter().map(|b| f64::from(f32::from_bits(*b))).collect() };
    let norm = |bits: &[u32]| stats::dot(&real(bits), &real(bits)).sqrt();
    let run = |text: &[u32], plan: &Plan, prompt| states(&model, text, &plan.interventions(prompt));

    let kept = plan(&model, &[("v.gguf,strength=3,layers=7,keep-norm", &vector)]);
    let kept = run(&text, &kept, 10);
    let pushed = run(
        &text,
        &plan(&model, &[("v.gguf,strength=3,layers=7", &vector)]),
        10,
    );
    for t in 0..10 {
        let old = norm(&baseline[7][t]);
        assert!((norm(&kept[7][t]) / old - 1.0).abs() < 1e-5);
        assert!((norm(&pushed[7][t]) / old - 1.0).abs() > 1e-3);
        // Only the length differs from the plain push.
        let (a, b) = (real(&kept[7][t]), real(&pushed[7][t]));
        let cosine = stats::dot(&a, &b) / (stats::dot(&a, &a) * stats::dot(&b, &b)).sqrt();
        assert!(cosine > 1.0 - 1e-9, "{cosine}");
    }

    // Without what block 4 adds its output is its input; half of it lies half way.
    let scaled = |text: &str| Plan::load(&[spec(text)], model.card()).unwrap().0;
    let without = run(&text, &scaled("scale=0,layers=4"), 10);
    assert_eq!(without[4], baseline[3]);
    let half = run(&text, &scaled("scale=0.5,layers=4,tokens=generated"), 6);
    for t in 0..10 {
        let (before, after) = (real(&baseline[3][t]), real(&baseline[4][t]));
        for (i, found) in real(&half[4][t]).into_iter().enumerate() {
            let share = if t < 6 { 1.0 } else { 0.5 };
            let expected = before[i] + share * (after[i] - before[i]);
            assert!((found - expected).abs() < 1e-5);
        }
    }
    // Scaling is undone by leaving it out: the next run is the baseline.
    assert_eq!(states(&model, &text, &[]), baseline);

    // Weights 1, 3 over a prompt of 4, by hand (PyTorch, align_corners=False): 1, 1.5, 2.5, 3, and 3 ever after.
    let weighted = plan(&model, &[("v.gguf,layers=12,token-weights=1/3", &vector)]);
    let weighted = run(&text, &weighted, 4);
    let direction = vector.direction(12).unwrap();
    for (t, weight) in [1.0, 1.5, 2.5, 3.0, 3.0, 3.0].into_iter().enumerate() {
        for (i, found) in real(&weighted[12][t]).into_iter().enumerate() {
            let expected = real(&baseline[12][t])[i] + weight * f64::from(direction[i]);
            assert!((found - expected).abs() < 1e-5, "token {t}");
        }
    }
    // Layer weights: one for each layer asked for.
    let layered = plan(
        &model,
        &[("v.gguf,layers=11..12,layer-weights=0/2", &vector)],
    );
    let double = plan(&model, &[("v.gguf,layers=12,strength=2", &vector)]);
    assert_eq!(run(&text, &layered, 10), run(&text, &double, 10));
    let wrong = Plan::default().push(
        &spec("v.gguf,layers=10..12,layer-weights=1/2"),
        &vector,
        model.card(),
    );
    assert!(wrong.unwrap_err().to_string().contains("2 layer weights"));
}

#[test]
fn what_is_asked_is_understood_or_refused_with_a_reason() {
    let full = spec(
        "path=a,b.gguf,strength=-1.8,layers=4..9,tokens=from:3,keep-norm,layer-weights=1/2,token-weights=0.5,tile",
    );
    assert_eq!(full.effect, Effect::Vector(PathBuf::from("a,b.gguf")));
    assert_eq!((full.strength, full.layers.clone()), (-1.8, Some(4..=9)));
    assert_eq!(
        (full.layer_weights.len(), &full.token_weights[..]),
        (2, &[0.5][..])
    );
    assert!(full.keep_norm && full.tile);
    assert_eq!(spec("v.gguf"), Spec::new(Effect::Vector("v.gguf".into())));
    assert_eq!(spec("scale=0.5,layers=3").effect, Effect::Scale(0.5));
    for (text, says) in [
        ("", "needs a value"),
        ("strength=1", "names no file"),
        ("v.gguf,strenght=1", "strength"),
        ("v.gguf,strength=x", "no finite number"),
        ("v.gguf,strength=inf", "no finite number"),
        ("v.gguf,layers=9..4", "backwards"),
        ("v.gguf,layers=a", "4..9"),
        ("v.gguf,tokens=some", "generated"),
        ("v.gguf,strength=1,strength=2", "strength stands"),
        ("v.gguf,path=w.gguf", "path stands"),
        ("v.gguf,keep-norm=1", "takes no value"),
        ("scale=2,strength=3", "not with strength"),
    ] {
        let problem = text.parse::<Spec>().unwrap_err();
        assert!(problem.contains(says), "{text}: {problem}");
    }
    let model = load("demo");
    let vector = wave(4..=6, 192);
    for (text, says) in [
        ("v.gguf,layers=10..13", "0..12"),
        ("v.gguf,layers=7..9", "only for 4..6"),
        ("v.gguf,strength=1e300", "too large"),
    ] {
        let problem = Plan::default().push(&spec(text), &vector, model.card());
        assert!(problem.unwrap_err().to_string().contains(says), "{text}");
    }
    let scaled = Plan::load(&[spec("scale=2,layers=0..3")], model.card());
    assert!(scaled.unwrap_err().to_string().contains("1..12"));
}

#[test]
fn separation_of_published_profiles_is_what_was_found_before() {
    let folder = root().join("../shared/data/layerwise_results");
    if !folder.is_dir() {
        return;
    }
    // Entropy and varentropy by sample and layer.
    let read = |model: &str, set: &str| -> [Vec<Vec<f64>>; 2] {
        let file = folder.join(model).join(format!("{set}_qs.json"));
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let samples = json["result"].as_array().unwrap();
        ["entropy", "varentropy"].map(|metric| {
            let of = |s: &serde_json::Value| {
                let layers = s[format!("hidden_states_{metric}")].as_array().unwrap();
                layers.iter().map(|x| x.as_f64().unwrap()).collect()
            };
            samples.iter().map(of).collect()
        })
    };
    for (model, last_h, best_h, mean_h, last_v) in [
        ("LFM2-1.2B", 0.882, (15, 0.894), 0.702, 0.796),
        ("finetuned-LFM2-1.2B", 0.959, (16, 0.959), 0.590, 0.955),
    ] {
        let known = read(model, "casehold_test");
        let mut unknown = read(model, "ledgar_test_unknown");
        for (all, more) in unknown
            .iter_mut()
            .zip(read(model, "unfair_tos_test_unknown"))
        {
            all.extend(more);
        }
        assert_eq!((known[0].len(), unknown[0].len()), (1000, 2000));
        let by = |metric: usize, of: &dyn Fn(&Vec<f64>) -> f64| {
            let set = |samples: &[Vec<f64>]| samples.iter().map(of).collect::<Vec<f64>>();
            stats::auroc(&set(&known[metric]), &set(&unknown[metric])).unwrap()
        };
        let at = |metric, layer: usize| by(metric, &move |sample| sample[layer]);
        let near = |what: &str, found: f64, expected: f64| {
            assert!(
                (found - expected).abs() < 6e-4,
                "{model} {what}: {found} {expected}"
            );
        };
        near("H last", at(0, 16), last_h);
        let best = (0..17)
            .max_by(|a, b| at(0, *a).total_cmp(&at(0, *b)))
            .unwrap();
        assert_eq!(best, best_h.0, "{model}");
        near("H best", at(0, best), best_h.1);
        near("mean H", by(0, &|s| stats::mean(s).unwrap()), mean_h);
        near("V last", at(1, 16), last_v);
        let set = |samples: &[Vec<f64>]| samples.iter().map(|s| s[16]).collect::<Vec<f64>>();
        let (low, high) =
            stats::auroc_interval(&set(&known[0]), &set(&unknown[0]), 200, 0.95, 1).unwrap();
        assert!(
            low < last_h && last_h < high && high - low < 0.04,
            "{low} {high}"
        );
    }
}

//! The lens against its float64 reference, on rows that break naive formulas.

use entroscope::lens::{Lens, LensSettings, reference};
use entroscope::trace::Cells;
use proptest::prelude::*;

/// Read one token whose states have these logits; the last is the final row.
fn read(rows: &[Vec<f32>], target: Option<u32>, settings: &LensSettings) -> (Lens, Cells) {
    let lens = Lens::new(settings.clone());
    let vectors = [1.0, -2.0, 0.5, 0.25].repeat(rows.len());
    let opened = lens.opened(1, rows.len(), rows.concat(), vectors);
    let cells = lens.read(&opened, &[target]).unwrap().swap_remove(0);
    (lens, cells)
}

fn value(lens: &Lens, cells: &Cells, layer: usize, name: &str) -> f32 {
    let metric = lens.schema().find(name).unwrap();
    cells.values[layer * lens.schema().len() + metric.0]
}

/// The tolerances of the numerical contract.
fn tolerance(name: &str, expected: f64) -> f64 {
    match name {
        "varentropy" => 1e-3 + 2e-5 * expected.abs(),
        "prob_margin" | "max_prob" => 1e-5,
        "logit_margin" => 1e-5 + 1e-6 * expected.abs(),
        "perplexity" => 2e-4 * expected,
        "next_rank" => 0.0,
        _ => 1e-4,
    }
}

fn compare(rows: &[Vec<f32>], target: Option<u32>, settings: &LensSettings) {
    let (lens, cells) = read(rows, target, settings);
    let wide = |row: &Vec<f32>| row.iter().map(|z| f64::from(*z)).collect::<Vec<f64>>();
    let last = wide(&rows[rows.len() - 1]);
    for (layer, row) in rows.iter().enumerate() {
        let row = wide(row);
        for (name, expected) in reference::distribution(&row, &last, target, settings) {
            let found = f64::from(value(&lens, &cells, layer, &name));
            if expected.is_nan() {
                assert!(
                    found.is_nan(),
                    "{name} of layer {layer}: {found} should be undefined"
                );
            } else if expected.is_infinite() {
                assert_eq!(found, expected, "{name} of layer {layer}");
            } else {
                let off = (found - expected).abs();
                assert!(
                    off <= tolerance(&name, expected),
                    "{name} of layer {layer}: {found}, expected {expected}"
                );
            }
        }
        let mut order: Vec<usize> = (0..row.len()).filter(|i| row[*i].is_finite()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        let top = &cells.top[layer * settings.top..(layer + 1) * settings.top];
        for (k, candidate) in top.iter().enumerate() {
            match order.get(k) {
                Some(id) => assert_eq!(candidate.id as usize, *id, "candidate {k}"),
                None => assert!(candidate.prob.is_nan()),
            }
        }
    }
}

fn noise(vocab: usize, seed: u64, spread: f32) -> Vec<f32> {
    (0..vocab as u64)
        .map(|i| {
            let x = (i + 1)
                .wrapping_mul(seed | 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                >> 40;
            (x as f32 / (1 << 24) as f32 - 0.5) * spread
        })
        .collect()
}

#[test]
fn rows_that_break_naive_formulas() {
    let settings = LensSettings {
        renyi: vec![0.5, 1.0, 1.0001, 2.0, 5.0, f64::INFINITY],
        ..LensSettings::default()
    };
    for vocab in [1, 2, 3, 400, 50_257] {
        let flat = vec![3.0; vocab];
        let mut peak = noise(vocab, 3, 1.0);
        peak[vocab / 2] = 1000.0;
        let mut far = noise(vocab, 5, 0.1);
        far.iter_mut().for_each(|z| *z += 1e4);
        let mut ties = vec![-1.0; vocab];
        ties[vocab - 1] = 2.0;
        ties[vocab / 3] = 2.0;
        let wide = noise(vocab, 7, 60.0);
        let last = noise(vocab, 11, 8.0);
        for row in [flat, peak, far, ties, wide] {
            let target = Some((vocab / 3) as u32);
            compare(&[row.clone(), last.clone()], target, &settings);
            compare(&[last.clone(), row.clone()], target, &settings);
            compare(&[row], None, &settings);
        }
    }
}

#[test]
fn minus_infinity_carries_no_weight() {
    let settings = LensSettings::default();
    let mut masked = noise(50, 13, 4.0);
    masked[7] = f32::NEG_INFINITY;
    masked[0] = f32::NEG_INFINITY;
    let open = noise(50, 17, 4.0);
    compare(&[masked.clone(), masked.clone()], Some(3), &settings);
    compare(&[open.clone(), masked.clone()], Some(3), &settings);
    // The other way round the final row allows what this layer rules out: that divergence is infinite, the rest is not.
    let (lens, cells) = read(&[masked, open], Some(3), &settings);
    assert!(value(&lens, &cells, 0, "kl_final").is_infinite());
    assert!(value(&lens, &cells, 0, "kl_from_final").is_finite());
    assert!(value(&lens, &cells, 0, "entropy").is_finite());
}

#[test]
fn invalid_rows_are_empty_not_zero() {
    let settings = LensSettings::default();
    let good = noise(40, 19, 3.0);
    let mut broken = good.clone();
    broken[5] = f32::NAN;
    for bad in [broken, vec![f32::NEG_INFINITY; 40], vec![f32::INFINITY; 40]] {
        let (lens, cells) = read(&[bad.clone(), good.clone()], Some(1), &settings);
        for spec in lens.schema().metrics() {
            let distribution = spec.group == entroscope::trace::Group::Distribution;
            let found = value(&lens, &cells, 0, &spec.name);
            assert_eq!(
                found.is_nan(),
                distribution,
                "{} of an invalid row: {found}",
                spec.name
            );
        }
        assert!(cells.top[..settings.top].iter().all(|c| c.prob.is_nan()));
        let (lens, cells) = read(&[good.clone(), bad], Some(1), &settings);
        assert!(value(&lens, &cells, 0, "kl_final").is_nan());
        assert!(value(&lens, &cells, 0, "entropy").is_finite());
        assert_eq!(cells.decided_layer, None);
    }
}

#[test]
fn the_decided_layer_is_the_lowest_from_which_on_the_answer_stays() {
    let says = |id: usize| {
        let mut row = vec![0.0; 8];
        row[id] = 5.0;
        row
    };
    for (rows, decided) in [
        (vec![says(1), says(2), says(1), says(1)], 2),
        (vec![says(1), says(1), says(1)], 0),
        (vec![says(1), says(2)], 1),
    ] {
        let (_, cells) = read(&rows, None, &LensSettings::default());
        assert_eq!(cells.decided_layer, Some(decided));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_rows_agree_with_the_reference(
        vocab in 1usize..600,
        seed in any::<u64>(),
        spread in 0.01f32..40.0,
        temperature in 0.25f64..4.0,
        target in any::<u32>(),
    ) {
        let settings = LensSettings { temperature, ..LensSettings::default() };
        let rows = [noise(vocab, seed, spread), noise(vocab, seed ^ 77, spread), noise(vocab, seed ^ 99, spread)];
        compare(&rows, Some(target % vocab as u32), &settings);
    }
}

/// The embedded model, whose vocabulary is read in several blocks: however the work is divided, and whether the next
/// tokens are known beforehand, every number is the same to the last bit.
#[test]
fn no_bit_depends_on_threads_tiles_or_when_targets_are_known() {
    use entroscope::model::decoder::{Row, Taps};
    use entroscope::model::{LoadOptions, Model};
    let model = Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
    let decoder = model.decoder();
    let prompt: Vec<u32> = (0..45).map(|i| (i * 37 + 5) % 1000).collect();
    let taps = Taps {
        states: true,
        attention: false,
    };
    let traced = decoder
        .forward(&mut [Row::new(&prompt, None)], taps)
        .unwrap();
    let targets: Vec<Option<u32>> = (0..prompt.len())
        .map(|i| prompt.get(i + 1).copied())
        .collect();
    let lens = Lens::new(LensSettings {
        renyi: vec![0.5, 1.01, 2.0, 3.5],
        ..LensSettings::default()
    });
    let same = |a: &[Cells], b: &[Cells]| {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            let bits = |c: &Cells| c.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let top = |c: &Cells| {
                let one = |c: &entroscope::trace::Candidate| (c.id, c.prob.to_bits());
                c.top.iter().map(one).collect::<Vec<_>>()
            };
            assert_eq!(bits(a), bits(b));
            assert_eq!(top(a), top(b));
            assert_eq!(a.decided_layer, b.decided_layer);
        }
    };
    let expected = lens
        .cells(decoder, &traced, 0..prompt.len(), &targets)
        .unwrap();
    assert_eq!(expected.len(), prompt.len());
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let known = lens
                .cells(decoder, &traced, 0..prompt.len(), &targets)
                .unwrap();
            same(&known, &expected);
            for tokens in [0..1, 3..20, 20..45] {
                let opened = lens.open(decoder, &traced, tokens.clone()).unwrap();
                let later = lens.read(&opened, &targets[tokens.clone()]).unwrap();
                same(&later, &expected[tokens.clone()]);
                let last = traced.last.narrow(0, tokens.start, 1).unwrap();
                let normed = decoder.final_norm(&last).unwrap();
                let plain = decoder.head(&normed).unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(opened.final_logits(0), plain[0]);
            }
        });
    }
    // Logits that are there already give what reading them on the way does.
    let rows: Vec<f32> = (0..3)
        .flat_map(|token| {
            traced.states.iter().flat_map(move |h| {
                let normed = decoder.final_norm(&h.narrow(0, token, 1).unwrap()).unwrap();
                let logits = decoder.head(&normed).unwrap();
                logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            })
        })
        .collect();
    let d = decoder.config().d_model;
    let vectors: Vec<f32> = (0..3)
        .flat_map(|token| {
            traced.states.iter().flat_map(move |h| {
                let h = h.narrow(0, token, 1).unwrap();
                h.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            })
        })
        .collect();
    assert_eq!(vectors.len(), 3 * traced.states.len() * d);
    let opened = lens.opened(3, traced.states.len(), rows, vectors);
    same(&lens.read(&opened, &targets[..3]).unwrap(), &expected[..3]);
}

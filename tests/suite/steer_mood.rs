//! The control vector that ships with the embedded model does what its README says, and a random one does not.

use entroscope::model::cache::State;
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::{Intervention, LoadOptions, Model};
use entroscope::steer::{self, ControlVector, Plan, Settings, Spec, parse_jsonl, train};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Tokens drawn from each opening.
const NEW_TOKENS: usize = 40;
/// As the README of the set uses it.
const AS_DOCUMENTED: &str = "mood.gguf,strength=0.3,layers=4..12";

const GLAD: &str = "happy happily glad laughed laugh smile smiled smiling fun joy love loved loves proud excited nice hugged \
                    hug kind safe good better best played";
const SAD: &str = "sad sadly cried cry crying scared afraid hurt angry mad upset lost alone bad worse worst mean sick hated \
                   broke broken died lonely tears";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_prompts/contrast")
}

/// Greedy continuations of all openings, read beside each other.
fn continued(model: &Model, openings: &[Vec<u32>], plan: &Plan) -> Vec<String> {
    let interventions: Vec<Vec<Intervention>> = openings
        .iter()
        .map(|text| plan.interventions(text.len()))
        .collect();
    let mut states: Vec<State> = openings.iter().map(|_| model.decoder().state()).collect();
    let mut unread = openings.to_vec();
    let mut drawn = vec![Vec::new(); openings.len()];
    for _ in 0..NEW_TOKENS {
        let rows = unread.iter().zip(&mut states).zip(&interventions);
        let mut rows: Vec<Row<'_>> = rows
            .map(|((text, state), plan)| Row::new(text, Some(state)).steered(plan))
            .collect();
        let traced = model.decoder().forward(&mut rows, Taps::default()).unwrap();
        let normed = model.decoder().final_norm(&traced.last).unwrap();
        let logits: Vec<Vec<f32>> = model.decoder().head(&normed).unwrap().to_vec2().unwrap();
        let mut last = 0;
        for (text, drawn) in unread.iter_mut().zip(&mut drawn) {
            last += text.len();
            let row = logits[last - 1].iter().enumerate().rev();
            let best = row.max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
            drawn.push(best);
            *text = vec![best];
        }
    }
    let text = |ids: &Vec<u32>| model.tokenizer().decode(ids, true).unwrap();
    drawn.iter().map(text).collect()
}

/// Glad and sad words in texts.
fn mood(texts: &[String]) -> (usize, usize) {
    let text = texts.join(" ").to_lowercase();
    let words = || text.split(|c: char| !c.is_ascii_alphabetic());
    let count = |list: &str| words().filter(|w| list.split(' ').any(|l| l == *w)).count();
    (count(GLAD), count(SAD))
}

/// The share of glad ones among them.
fn share((glad, sad): (usize, usize)) -> f64 {
    glad as f64 / (glad + sad).max(1) as f64
}

#[test]
fn the_mood_vector_turns_stories_and_random_ones_do_not() {
    let model = Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
    let shipped = steer::open(&folder().join("mood.gguf")).unwrap().vector;
    // None of these openings was trained on.
    let openings = |name: &str| -> Vec<Vec<u32>> {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        let ids = |line| model.tokenizer().encode(line, true).unwrap();
        text.lines().map(ids).collect()
    };
    let sets = [openings("mood_neutral.txt"), openings("mood_gloomy.txt")];
    assert_eq!(sets.each_ref().map(Vec::len), [24, 12]);
    let by = |vector: &ControlVector, sign: f64| {
        let mut spec: Spec = AS_DOCUMENTED.parse().unwrap();
        spec.strength *= sign;
        let mut plan = Plan::default();
        plan.push(&spec, vector, model.card()).unwrap();
        sets.each_ref()
            .map(|set| mood(&continued(&model, set, &plan)))
    };
    // Directions of the same lengths that point anywhere.
    let random = |seed: u64| {
        let mut rng = StdRng::seed_from_u64(seed);
        let direction = |layer: usize| {
            let v: Vec<f32> = (0..192).map(|_| rng.random_range(-1.0f32..1.0)).collect();
            let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
            let factor = length(shipped.direction(layer).unwrap()) / length(&v);
            (layer, v.iter().map(|x| x * factor).collect())
        };
        let layers = shipped.layers().unwrap().into_iter();
        ControlVector::new(layers.map(direction).collect::<BTreeMap<_, _>>()).unwrap()
    };
    let (baseline, glad, sad) = (by(&shipped, 0.0), by(&shipped, 1.0), by(&shipped, -1.0));
    let by_chance: Vec<[(usize, usize); 2]> = (0..4)
        .flat_map(|seed| [1.0, -1.0].map(|sign| by(&random(seed), sign)))
        .collect();
    // With --nocapture these are the figures of the README.
    println!("(glad, sad) words after neutral and gloomy openings");
    println!("baseline {baseline:?}\nglad {glad:?}\nsad {sad:?}\nrandom {by_chance:?}");
    for (set, (glad, sad)) in glad.into_iter().zip(sad).enumerate() {
        assert!(glad.0 + glad.1 >= 20 && sad.0 + sad.1 >= 20);
        let turned = share(glad) - share(sad);
        assert!(turned > 0.8, "{turned}");
        for pair in by_chance.chunks(2) {
            let difference = (share(pair[0][set]) - share(pair[1][set])).abs();
            assert!(difference < turned / 2.0, "{pair:?}");
        }
    }
}

#[test]
fn the_mood_vector_is_what_its_command_makes() {
    let model = Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
    let file = folder().join("mood.jsonl");
    let pairs = parse_jsonl(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
    let trained = train(&model, &pairs, &Settings::default(), &mut |_, _| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let shipped = steer::open(&folder().join("mood.gguf")).unwrap().vector;
    assert_eq!(trained.vector.layers(), shipped.layers());
    for layer in shipped.layers().unwrap() {
        let (a, b) = (
            trained.vector.direction(layer).unwrap(),
            shipped.direction(layer).unwrap(),
        );
        let scale = b.iter().map(|x| x.abs()).fold(0.0, f32::max);
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 1e-4 * scale, "layer {layer}: {a} {b}");
        }
    }
    // Which layers carry it is said truly: late ones tell glad from sad on pairs they never saw, the second hardly.
    let at = |layer: usize| {
        trained
            .separation
            .iter()
            .find(|s| s.layer == layer)
            .unwrap()
    };
    assert_eq!((trained.trained_on, trained.held_out), (48, 16));
    assert!(at(11).auroc.unwrap() > 0.95, "{:?}", trained.separation);
    assert!(at(2).auroc.unwrap() < 0.75, "{:?}", trained.separation);
}

#[test]
fn training_can_be_given_up_and_says_how_far_it_is() {
    let model = Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap();
    let file = folder().join("formality.jsonl");
    let pairs = parse_jsonl(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
    let settings = Settings {
        batch: 3,
        ..Settings::default()
    };
    let mut heard = Vec::new();
    let outcome = train(&model, &pairs, &settings, &mut |done, total| {
        heard.push((done, total));
        match done < 6 {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    assert!(matches!(outcome, Err(entroscope::Error::Interrupted)));
    assert_eq!(heard, [(0, 32), (3, 32), (6, 32)]);
    // How many texts are read at once changes no bit.
    let by = |batch| {
        let settings = Settings {
            batch,
            ..Settings::default()
        };
        train(&model, &pairs, &settings, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap()
    };
    assert_eq!(by(1).vector, by(32).vector);
}

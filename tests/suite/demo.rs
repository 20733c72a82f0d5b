//! The embedded model keeps what its card promises: it knows what it was told, and its entropy tells what it was not.

use entroscope::model::{LoadOptions, Model};
use entroscope::train::evaluate;
use entroscope::train::world::{Probe, Probes};
use std::path::Path;

fn probes(name: &str) -> Vec<Probe> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sample_prompts/{name}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn demo() -> Model {
    Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {}).unwrap()
}

#[test]
fn it_knows_its_facts_and_is_unsure_of_the_rest() {
    let model = demo();
    let tokenizer: tokenizers::Tokenizer = model.tokenizer().to_json().unwrap().parse().unwrap();
    let probes = Probes {
        known: probes("known"),
        near_ood: probes("near_ood"),
        withheld: probes("withheld"),
        hops: Vec::new(),
        stories: Vec::new(),
    };
    assert!(
        probes
            .near_ood
            .iter()
            .chain(&probes.withheld)
            .all(|p| p.answer.is_empty())
    );
    let quality = evaluate::quality(model.decoder(), &tokenizer, &probes, &mut |_, _| {}).unwrap();
    assert!(quality.known.exact.unwrap() >= 0.95, "{:?}", quality.known);
    assert!(
        quality.auroc_near_ood.unwrap() >= 0.95,
        "{:?}",
        quality.auroc_near_ood
    );
    assert!(
        quality.auroc_withheld.unwrap() >= 0.90,
        "{:?}",
        quality.auroc_withheld
    );
    // The length of a prompt tells nothing.
    for by_length in [quality.auroc_length_near_ood, quality.auroc_length_withheld] {
        assert!((by_length.unwrap() - 0.5).abs() < 0.05, "{by_length:?}");
    }
}

#[test]
fn it_is_small_deep_enough_and_quantised() {
    let model = demo();
    let card = model.card();
    assert!(card.blocks >= 12);
    assert_eq!(
        (card.family.as_str(), card.dtype.as_str()),
        ("llama", "q8_0")
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/demo/model.gguf");
    assert!(std::fs::metadata(file).unwrap().len() <= 9_000_000);
    // Blocks stay quantised in memory: only embedding and norms are widened.
    let as_floats = card.parameters * 4;
    assert!(
        card.bytes * 2 < as_floats,
        "{} of {as_floats} bytes",
        card.bytes
    );
}

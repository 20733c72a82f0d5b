//! What a configuration becomes, key by key.

use super::*;

/// llm_entropy's own three files have these keys.
const FULL: &str = "
analysis:
  num_sentences: 12
  temperature: 0.8
  use_sampling: true
  compare_control: true  # both
  control:
    enabled: true
    layer_weights: [1.0, 1.5]
    token_weights:
      - 1
      - 2.5
    control_vectors:
      positive: [2.0, 2.5, 3]
      negative: [-2.0, -2.5, -3]
models:
  gpt2:
    name: \"gpt2\"
    output_hidden_states: true
  bert:
    name: google-bert/bert-base-uncased
    control_dimension: 768
output:
  plots_dir: plots
  results_dir: results
batch_size: 8
output_dir: outputs
";

fn read(text: &str) -> Result<(Analysis, Vec<String>)> {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("a.yaml");
    std::fs::write(&file, text).unwrap();
    Analysis::read(&file)
}

fn refused(text: &str, what: &[&str]) {
    let error = read(text).unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
    let message = error.to_string();
    for what in what.iter().chain(&["a.yaml"]) {
        assert!(message.contains(what), "{message}");
    }
}

fn card() -> ModelCard {
    ModelCard {
        blocks: 2,
        ..ModelCard::default()
    }
}

#[test]
fn every_key_is_what_its_flag_would_be() {
    let (analysis, warnings) = read(FULL).unwrap();
    assert_eq!(analysis.sentences, Some(12));
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        analysis.models,
        [
            pair("gpt2", "gpt2"),
            pair("bert", "google-bert/bert-base-uncased")
        ]
    );
    assert_eq!(analysis.out.as_deref(), Some(Path::new("outputs")));
    let mut settings = Settings::default();
    analysis.lay_over(&mut settings);
    assert_eq!(settings.model, "gpt2");
    assert_eq!(
        (settings.lens.temperature, settings.sampling.temperature),
        (0.8, 0.8)
    );
    let steer = analysis.steer(&card()).unwrap();
    let flag = format!("{},tile,layers=0..2", analysis.file.display());
    assert_eq!(steer, flag.parse::<Spec>().unwrap());
    // Known and without meaning here: one warning that names them.
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for key in ["output.plots_dir", "output.results_dir", "batch_size"] {
        assert!(warnings[0].contains(key), "{warnings:?}");
    }
}

#[test]
fn its_weights_and_its_vector_reach_the_plan() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("a.yaml");
    std::fs::write(&file, FULL).unwrap();
    let (analysis, _) = Analysis::read(&file).unwrap();
    let card = ModelCard {
        d_model: 4,
        ..card()
    };
    let steer = analysis.steer(&card).unwrap();
    let (plan, _) = crate::steer::Plan::load(&[steer], &card).unwrap();
    let pushes = plan.interventions(2);
    let pushed: Vec<(usize, Vec<f32>)> = pushes
        .iter()
        .map(|push| match &push.change {
            crate::model::Change::Add { vector, .. } => (push.layer, vector.to_vec()),
            other => panic!("{other:?}"),
        })
        .collect();
    // The embedding has no weight of its own and keeps 1; a vector of three repeats to a width of four.
    assert_eq!(
        pushed,
        [
            (0, vec![2.0, 2.5, 3.0, 2.0]),
            (1, vec![2.0, 2.5, 3.0, 2.0]),
            (2, vec![3.0, 3.75, 4.5, 3.0]),
        ]
    );
    let crate::model::Change::Add { weights, .. } = &pushes[0].change else {
        panic!("not added");
    };
    // Two tokens, two weights; the last holds on.
    assert_eq!(weights[..], [1.0, 2.5, 2.5]);
}

#[test]
fn what_is_not_said_stays_as_it_is() {
    for text in [
        "",
        "analysis:\n",
        "analysis: {temperature: null, control: null}\nmodels: null\n",
    ] {
        let (analysis, warnings) = read(text).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let mut settings = Settings::default();
        analysis.lay_over(&mut settings);
        assert_eq!(settings, Settings::default());
        assert_eq!(analysis.steer(&card()), None);
    }
    let greedy = "analysis: {temperature: 2, use_sampling: false, control: {enabled: false, \
                  control_vectors: {positive: [1]}}}";
    let (analysis, _) = read(greedy).unwrap();
    let mut settings = Settings::default();
    settings.sampling.temperature = 0.7;
    analysis.lay_over(&mut settings);
    assert_eq!(
        (settings.lens.temperature, settings.sampling.temperature),
        (2.0, 0.0)
    );
    assert_eq!(analysis.control, None, "it is not enabled");
}

#[test]
fn our_own_keys_say_more() {
    let text = "analysis: {prompts: [One, Two], seed: 9, control: {enabled: true, strength: -0.5, layers: 1..2, \
                control_vectors: {positive: [1, 2]}}}";
    let (analysis, warnings) = read(text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!((analysis.prompts.len(), analysis.seed), (2, Some(9)));
    let steer = analysis.steer(&card()).unwrap();
    assert_eq!((steer.strength, steer.layers), (-0.5, Some(1..=2)));
}

#[test]
fn unknown_keys_are_named() {
    let text = "analysis: {num_sentence: 3, control: {alpha: null}}\nmodels: {gpt2: {name: gpt2, size: 1}}\ncolour: red\n";
    let (_, warnings) = read(text).unwrap();
    let all = warnings.join("\n");
    for what in [
        "analysis.num_sentence is not known",
        "did you mean analysis.num_sentences?",
        "analysis.control.alpha is not known",
        "models.gpt2.size is not known",
        "colour is not known",
    ] {
        assert!(all.contains(what), "{all}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused_with_their_key() {
    refused(
        "analysis: {num_sentences: 0}",
        &["analysis.num_sentences must be"],
    );
    refused(
        "analysis: {num_sentences: many}",
        &["must be a whole number", "many"],
    );
    refused(
        "analysis: {temperature: 0}",
        &["analysis.temperature must be"],
    );
    refused(
        "analysis: {temperature: .nan}",
        &["is no YAML", "non-finite"],
    );
    refused(
        "analysis: {use_sampling: 3}",
        &["analysis.use_sampling must be true or false"],
    );
    refused("analysis: {seed: -1}", &["analysis.seed must be"]);
    refused(
        "analysis: {prompts: [' ']}",
        &["analysis.prompts has an empty prompt"],
    );
    refused("analysis: 3", &["analysis must hold keys and values"]);
    refused("[1, 2]", &["the file must hold keys and values"]);
    refused(
        "analysis: {control: {layers: [1]}}",
        &["analysis.control.layers must be a range"],
    );
    refused("analysis: {control: {layers: 5..2}}", &["run backwards"]);
    refused(
        "analysis: {control: {layer_weights: 2}}",
        &["analysis.control.layer_weights must be a list"],
    );
    refused(
        "analysis: {control: {control_vectors: {positive: [a]}}}",
        &["analysis.control.control_vectors.positive must be a number"],
    );
    refused(
        "analysis: {control: {control_vectors: {positive: []}}}",
        &["analysis.control.control_vectors.positive must be a list"],
    );
    refused(
        "analysis: {control: {control_vectors: [1, 2]}}",
        &["analysis.control.control_vectors must hold keys"],
    );
    refused(
        "analysis: {control: {enabled: true}}",
        &["no control_vectors.positive", "--steer"],
    );
    refused("models: {gpt2: gpt2}", &["models.gpt2 must hold a name"]);
    refused(
        "models: {gpt2: {output_hidden_states: true}}",
        &["models.gpt2 has no name"],
    );
    refused("models: {gpt2: {name: 3}}", &["models.gpt2.name must be"]);
    refused("analysis: [", &["is no YAML"]);
    let missing = Analysis::read(Path::new("/nowhere/a.yaml")).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"));
}

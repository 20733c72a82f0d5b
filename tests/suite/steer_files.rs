//! Files of control vectors: every format, there and back, and everything that is no control vector.

use super::oracle;
use super::steer::{load, root, spec, vector};
use candle_core::{DType, Device, Tensor};
use entroscope::steer::{self, ControlVector, Format, Plan};

#[test]
fn files_round_trip_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut numbers: Vec<f32> = vec![0.1, -0.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, -1.5];
    numbers.push(std::f32::consts::PI);
    let mut vector = vector(&[
        (2, numbers.clone()),
        (5, numbers.iter().map(|x| -x).collect()),
    ]);
    vector.model_hint = Some("llama".into());
    let bits = |v: &ControlVector| -> Vec<(usize, Vec<u32>)> {
        let layers = v.layers().unwrap();
        let of = |l: usize| {
            v.direction(l)
                .unwrap()
                .iter()
                .map(|x| x.to_bits())
                .collect()
        };
        layers.into_iter().map(|l| (l, of(l))).collect()
    };
    for (name, format) in [
        ("v.gguf", Format::Gguf),
        ("v.safetensors", Format::Safetensors),
        ("v.json", Format::Json),
    ] {
        let file = folder.path().join(name);
        let (bytes, dropped) = vector.to_bytes(format).unwrap();
        std::fs::write(&file, &bytes).unwrap();
        let opened = steer::open(&file).unwrap();
        assert_eq!(bits(&opened.vector), bits(&vector), "{name}");
        assert!(dropped.is_empty() && opened.warnings.is_empty());
        let (again, _) = opened.vector.to_bytes(format).unwrap();
        assert!(again == bytes, "{name}");
        // Cut anywhere and it is refused, not trusted.
        for cut in [1, bytes.len() / 4, bytes.len() - 8] {
            std::fs::write(&file, &bytes[..cut]).unwrap();
            assert!(steer::open(&file).is_err(), "{name} cut at {cut}");
        }
    }
    // llama.cpp knows no direction for block 0, and repeng's key is kept.
    let first = self::vector(&[(1, numbers.clone()), (2, numbers.clone())]);
    let (bytes, dropped) = first.to_bytes(Format::Gguf).unwrap();
    assert!(dropped[0].contains("left out"));
    let file = folder.path().join("v.gguf");
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(steer::open(&file).unwrap().vector.layers(), Some(vec![2]));
    let (bytes, _) = first.to_bytes(Format::Safetensors).unwrap();
    let file = folder.path().join("v.safetensors");
    std::fs::write(&file, bytes).unwrap();
    let opened = steer::open(&file).unwrap();
    assert!(opened.warnings[0].contains("direction.0"));
    assert_eq!(opened.vector, first);
    // One for all layers has a place in JSON, and none in GGUF.
    let all = ControlVector::for_all_layers(numbers).unwrap();
    assert!(
        all.to_bytes(Format::Gguf)
            .unwrap_err()
            .to_string()
            .contains("--layers")
    );
    let (bytes, _) = all.to_bytes(Format::Json).unwrap();
    let file = folder.path().join("v.json");
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(steer::open(&file).unwrap().vector, all);
}

#[test]
fn pytorchs_files_are_read_as_data() {
    let open = |name: &str| steer::open(&root().join("tests/vectors").join(name));
    let of = |name: &str| open(name).unwrap().vector;
    assert_eq!(
        of("dictionary.pt"),
        vector(&[
            (2, vec![1.5, -2.0, 0.25]),
            (3, vec![0.5, 4.0, -8.0]),
            (5, vec![1.0, 2.0, -0.5])
        ])
    );
    let rows = [(1, vec![1.0, 2.0, 3.0]), (2, vec![4.0, 5.0, 6.0])];
    assert_eq!(of("matrix.pt"), vector(&rows));
    assert_eq!(
        of("list.pt"),
        vector(&[(1, vec![1.0, 2.0]), (2, vec![3.0, 4.0])])
    );
    let all = ControlVector::for_all_layers(vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(of("one.pt"), all);
    // A call stays a name: nothing is run, and it is no tensor.
    let problem = open("call.pt").unwrap_err().to_string();
    assert!(problem.contains("is no tensor"), "{problem}");
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(root().join("tests/vectors/dictionary.pt")).unwrap();
    let file = folder.path().join("x.pt");
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&file, damaged).unwrap();
        // Whatever it is, it is no panic.
        let _ = steer::open(&file);
        std::fs::write(&file, &bytes[..at]).unwrap();
        assert!(steer::open(&file).is_err());
    }
}

#[test]
fn settings_of_llm_entropy_are_read_and_too_short_vectors_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = load("demo");
    let yaml = "analysis:\n  num_sentences: 10\n  control:\n    enabled: true\n    layer_weights: [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, \
                2.0, 1.8, 1.6, 1.4, 1.2, 1.0]\n    token_weights:\n      - 1.0 # start\n      - 3.0\n    control_vectors:\n      \
                positive: [2.0, 2.5, 3.0, 3.5, 4.0]\n      negative: [-2.0]\n";
    let file = folder.path().join("control.yaml");
    std::fs::write(&file, yaml).unwrap();
    let opened = steer::open(&file).unwrap();
    assert_eq!(
        opened.vector.direction(3),
        Some(&[2.0, 2.5, 3.0, 3.5, 4.0][..])
    );
    assert_eq!(
        (opened.layer_weights.len(), opened.layer_weights[1]),
        (12, 1.2)
    );
    assert_eq!(opened.token_weights, [1.0, 3.0]);
    assert!(opened.warnings[0].contains("negative"));
    let path = file.display();
    let load = |text: String| Plan::load(&[spec(&text)], model.card());
    let problem = load(path.to_string()).unwrap_err().to_string();
    assert!(
        problem.contains("has 5 numbers a layer, but the states of demo have 192"),
        "{problem}"
    );
    let (plan, _) = load(format!("{path},tile,layers=2..3")).unwrap();
    let interventions = plan.interventions(4);
    let expected: Vec<f32> = [2.0f32, 2.5, 3.0, 3.5, 4.0]
        .iter()
        .cycle()
        .take(192)
        .map(|x| (f64::from(*x) * 1.2) as f32)
        .collect();
    let entroscope::model::Change::Add {
        vector, weights, ..
    } = &interventions[0].change
    else {
        panic!("{interventions:?}");
    };
    assert_eq!(
        (&vector[..], interventions[0].layer, interventions.len()),
        (&expected[..], 2, 2)
    );
    assert_eq!(&weights[..], [1.0, 1.5, 2.5, 3.0, 3.0]);

    for (name, text, says) in [
        ("a.json", "[1, 2, \"x\"]", "entry 3"),
        ("a.json", "[1, 1e39]", "entry 2"),
        (
            "a.json",
            "{\"direction.1\": [1], \"direction.2\": [1, 2]}",
            "2 numbers",
        ),
        (
            "a.json",
            "{\"direction\": [1], \"direction.2\": [1]}",
            "one direction for all",
        ),
        ("a.json", "{\"nothing\": [1]}", "nothing"),
        ("a.json", "[]", "no numbers"),
        ("a.json", "3", "neither"),
        ("a.json", "[1", "cannot be understood"),
        ("a.yaml", "a: [1\nb", "cannot be understood"),
        (
            "a.yaml",
            "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]",
            "no finite number",
        ),
        ("a.txt", "1", "no ending"),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let problem = steer::open(&file).unwrap_err().to_string();
        assert!(problem.contains(says), "{text}: {problem}");
    }
    let rows = folder.path().join("rows.json");
    std::fs::write(&rows, "[[1, 2], [3, 4]]").unwrap();
    assert_eq!(
        steer::open(&rows).unwrap().vector.direction(2),
        Some(&[3.0, 4.0][..])
    );
}

#[test]
fn a_vector_of_another_model_is_read_and_refused() {
    let file = root().join("../shared/data/control_vectors/control_vector.gguf");
    if !file.is_file() {
        return;
    }
    // A Gemma of 28 blocks and width 3072.
    let opened = steer::open(&file).unwrap();
    assert_eq!(opened.vector.layers(), Some((2..=28).collect()));
    assert_eq!(opened.vector.width(), 3072);
    assert_eq!(opened.vector.model_hint.as_deref(), Some("gemma"));
    let problem = Plan::load(&[spec(&file.display().to_string())], load("demo").card());
    let problem = problem.unwrap_err().to_string();
    assert!(
        problem.contains("3072 numbers a layer, but the states of demo have 192")
            && problem.contains("gemma"),
        "{problem}"
    );
}

#[test]
fn safetensors_of_other_shapes_and_kinds_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("v.safetensors");
    let save = |named: &[(&str, Tensor)]| {
        let named: std::collections::HashMap<&str, Tensor> = named.iter().cloned().collect();
        candle_core::safetensors::save(&named, &file).unwrap();
        steer::open(&file).map(|opened| opened.vector)
    };
    let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let problem = |named: &[(&str, Tensor)]| save(named).unwrap_err().to_string();
    assert!(problem(&[("direction.1", ones(&[2, 3]))]).contains("one row"));
    assert!(problem(&[("weight", ones(&[3]))]).contains("has a tensor weight"));
    assert!(problem(&[("direction.99999999", ones(&[3]))]).contains("99999999"));
    let half = ones(&[1, 3]).to_dtype(DType::F16).unwrap();
    assert_eq!(
        save(&[("direction.4", half)]).unwrap(),
        vector(&[(5, vec![1.0; 3])])
    );
    // A model is no control vector.
    let model = oracle::folder("llama").join("model.safetensors");
    assert!(steer::open(&model).is_err());
    let gguf = root().join("src/model/demo/model.gguf");
    let problem = steer::open(&gguf).unwrap_err().to_string();
    assert!(
        problem.contains("of the kind \"llama\", not \"controlvector\""),
        "{problem}"
    );
}

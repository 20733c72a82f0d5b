use super::*;

fn read(source: &str, environment: &[(&str, &str)]) -> Result<Loaded> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), source).unwrap();
    let folders = Folders {
        config: Some(dir.path().to_path_buf()),
        ..Folders::default()
    };
    let environment = environment
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load(None, &folders, environment)
}

#[test]
fn without_a_file_there_are_defaults() {
    let loaded = load(None, &Folders::default(), []).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert_eq!(loaded.file, None);
    assert_eq!(loaded.settings.model, "demo");
}

#[test]
fn every_key_is_read_from_the_file() {
    let loaded = read(
        r#"
            model = "org/name@main"
            device = "cpu"
            theme = "light"
            colour = "256"
            low_bandwidth = true
            max_new_tokens = 1_000
            export_dir = "/tmp/out"
            log = "debug"
            [sampling]
            temperature = 1
            top_k = 40
            top_p = 0.9
            min_p = 0.05
            repetition_penalty = 1.1
            seed = 0x10
            [lens]
            temperature = 2.0
            renyi = [1, 3.5, inf]
            topk_shares = [0.05, 0.1]
            l0_threshold = 0.01
            top = 3
            states = "normed"
            [keys]
            quit = "ctrl-q"
            help = ["?", "f1"]
        "#,
        &[],
    )
    .unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let s = loaded.settings;
    assert_eq!(s.model, "org/name@main");
    assert_eq!(s.colour, Colour::Ansi256);
    assert!(s.low_bandwidth);
    assert_eq!(s.max_new_tokens, Some(1000));
    assert_eq!(s.export_dir, Some("/tmp/out".into()));
    assert_eq!(
        s.sampling,
        Sampling {
            temperature: 1.0,
            top_k: Some(40),
            top_p: Some(0.9),
            min_p: Some(0.05),
            repetition_penalty: 1.1,
            seed: 16,
        }
    );
    assert_eq!(s.lens.renyi, [1.0, 3.5, f64::INFINITY]);
    assert_eq!(s.lens.topk_shares, [0.05, 0.1]);
    assert_eq!(s.lens.states, StateKind::Normed);
    assert_eq!(s.keys["help"], ["?", "f1"]);
    assert_eq!(s.keys["quit"], ["ctrl-q"]);
}

#[test]
fn variables_win_over_the_file() {
    let loaded = read(
        "model = \"a\"\n[sampling]\nseed = 1\n",
        &[
            ("ENTROSCOPE_SAMPLING_SEED", "2"),
            ("ENTROSCOPE_LENS_RENYI", "0.5,inf"),
            ("ENTROSCOPE_LOW_BANDWIDTH", "yes"),
            ("ENTROSCOPE_COLOUR", ""),
            ("ENTROSCOPE_CONFIG_DIR", "/x"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.settings.model, "a");
    assert_eq!(loaded.settings.sampling.seed, 2);
    assert_eq!(loaded.settings.lens.renyi, [0.5, f64::INFINITY]);
    assert!(loaded.settings.low_bandwidth);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn unknown_keys_are_warnings_with_the_nearest_key() {
    let loaded = read(
        "modle = \"a\"\ntemperature = 1\nzzz = { a = 1 }\n[sampling]\ntop_x = 3\n",
        &[("ENTROSCOPE_MODLE", "b"), ("ENTROSCOPE_ELSEWHERE", "1")],
    )
    .unwrap();
    assert_eq!(loaded.settings, Settings::default());
    let all = loaded.warnings.join("\n");
    assert_eq!(loaded.warnings.len(), 5, "{all}");
    assert!(all.contains("line 1: there is no setting `modle` (did you mean `model`?)"));
    assert!(all.contains(
        "line 2: there is no setting `temperature` (did you mean `sampling.temperature`?)"
    ));
    assert!(all.contains("line 3: there is no setting `zzz`; it is ignored"));
    assert!(
        all.contains("line 5: there is no setting `sampling.top_x` (did you mean `sampling.top_")
    );
    assert!(all.contains("ENTROSCOPE_MODLE means nothing (did you mean ENTROSCOPE_MODEL?)"));
}

#[test]
fn senseless_values_name_file_and_line() {
    for (source, says) in [
        (
            "\n[sampling]\ntemperature = \"hot\"",
            "line 3: `sampling.temperature` must be a number, not \"hot\"",
        ),
        (
            "[sampling]\ntop_p = 1.5",
            "line 2: `sampling.top_p` must be greater than 0 and at most 1",
        ),
        (
            "[sampling]\nseed = -1",
            "must be a whole number from 0 on, not -1",
        ),
        (
            "max_new_tokens = 1.5",
            "line 1: `max_new_tokens` must be a whole number",
        ),
        ("model = 3", "must be a text in quotes, not 3"),
        ("model = { a = 1 }", "`model` cannot be a table"),
        ("sampling = 3", "`sampling`"),
        (
            "colour = \"pink\"",
            "must be auto, truecolor, 256, 16 or never",
        ),
        ("[lens]\nrenyi = [2, 2.0]", "none twice"),
        ("[lens]\ntopk_shares = [0.1, 0.100001]", "none twice"),
        ("[lens]\ntop = 1000", "at most 100"),
        ("[keys]\nquit = 3", "`keys.quit` must be a key in quotes"),
        ("keys = 3", "`keys` is a table"),
        ("a = \nb = 2", "line 1: "),
    ] {
        match read(source, &[]) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(says), "{source:?}: {error}");
                assert!(error.contains("config.toml"), "{error}");
            }
            // A table's name used for a value is unknown as a setting.
            Ok(loaded) => assert!(
                loaded.warnings.iter().any(|w| w.contains(says)),
                "{source:?}: {:?}",
                loaded.warnings
            ),
        }
    }
}

#[test]
fn senseless_variables_are_wrong_usage() {
    let error = read("", &[("ENTROSCOPE_SAMPLING_TOP_K", "0")]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert_eq!(
        error.to_string(),
        "the environment variable ENTROSCOPE_SAMPLING_TOP_K must be a whole number from 1 on"
    );
}

#[test]
fn a_named_file_must_exist() {
    let missing = Path::new("/nonexistent/config.toml");
    let error = load(Some(missing), &Folders::default(), []).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/config.toml"));
}

use super::*;
use crate::session::Prompt;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("entroscope").chain(line.iter().copied()))
}

fn run_args(line: &[&str]) -> run::Args {
    match parse(line).unwrap().command {
        Some(Command::Run(args)) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn nothing_opens_the_screen() {
    let cli = parse(&[]).unwrap();
    assert!(cli.command.is_none());
    let cli = parse(&["--model", "org/name", "--prompt-file", "p.txt"]).unwrap();
    assert!(cli.command.is_none());
    assert_eq!(cli.common.model.as_deref(), Some("org/name"));
    assert_ne!(cli.screen, tui::Args::default());
    let cli = parse(&["tui", "--prompt-file", "p.txt"]).unwrap();
    assert!(matches!(cli.command, Some(Command::Tui(args)) if args.prompt_file.is_some()));
}

#[test]
fn the_screen_takes_two_sets_of_prompts_or_none() {
    let cli = parse(&["--known", "a", "--unknown", "b"]).unwrap();
    assert!(cli.screen.known.is_some() && cli.screen.unknown.is_some());
    for half in [["--known", "a"], ["--unknown", "b"]] {
        let kind = parse(&half).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::MissingRequiredArgument);
    }
}

#[test]
fn common_flags_stand_on_either_side() {
    for line in [
        &["--model", "x", "-v", "run", "hi"][..],
        &["run", "hi", "--model", "x", "-v"],
        &["-v", "run", "--model", "x", "hi"],
    ] {
        let cli = parse(line).unwrap();
        assert_eq!(cli.common.model.as_deref(), Some("x"), "{line:?}");
        assert_eq!(cli.common.verbose, 1, "{line:?}");
    }
}

#[test]
fn the_last_of_equal_flags_counts() {
    let cli = parse(&[
        "run", "hi", "--model", "a", "--model", "b", "--seed", "1", "--seed", "2",
    ]);
    let cli = cli.unwrap();
    assert_eq!(cli.common.model.as_deref(), Some("b"));
    assert!(
        matches!(cli.command, Some(Command::Run(args)) if args.reading.sampling.seed == Some(2))
    );
}

#[test]
fn screen_options_before_a_subcommand_are_refused() {
    let error = dispatch(parse(&["--prompt-file", "p", "run", "hi"]).unwrap()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("put `run` first"), "{error}");
}

#[test]
fn prompts_come_in_one_form() {
    let read = |line: &[&str]| {
        let args = run_args(line);
        args.prompt.read(args.reading.chat)
    };
    let text = |s: &str| Prompt::Text(s.into());
    assert_eq!(read(&["run", "hi"]).unwrap(), text("hi"));
    assert_eq!(read(&["run", "--prompt", "hi"]).unwrap(), text("hi"));
    assert_eq!(read(&["run", " hi "]).unwrap(), text(" hi "));
    assert_eq!(
        read(&["run", "--chat", "hi"]).unwrap(),
        Prompt::Chat("hi".into())
    );
    assert_eq!(
        read(&["run", "--prompt-ids", "1,2,3"]).unwrap(),
        Prompt::Ids(vec![1, 2, 3])
    );
    for (line, kind) in [
        (&["run"][..], ErrorKind::MissingRequiredArgument),
        (&["run", "a", "--prompt", "b"], ErrorKind::ArgumentConflict),
        (
            &["run", "--prompt-file", "f", "--prompt-ids", "1"],
            ErrorKind::ArgumentConflict,
        ),
        (&["run", "--prompt-ids", "1,x"], ErrorKind::ValueValidation),
        (
            &["run", "a", "--table", "--json"],
            ErrorKind::ArgumentConflict,
        ),
        (&["run", "a", "--force"], ErrorKind::MissingRequiredArgument),
        (&["run", "a", "-q", "-v"], ErrorKind::ArgumentConflict),
        (&["run", "a", "--top-p", "1.5"], ErrorKind::ValueValidation),
        (
            &["run", "a", "--temperature", "-1"],
            ErrorKind::ValueValidation,
        ),
        (
            &["run", "a", "--temperature", "nan"],
            ErrorKind::ValueValidation,
        ),
        (&["run", "a", "--top-k", "0"], ErrorKind::ValueValidation),
        (&["run", "a", "--renyi", "2,2"], ErrorKind::ValueValidation),
        (
            &["run", "a", "--states", "both"],
            ErrorKind::ValueValidation,
        ),
        (&["run", "a", "--top", "5000"], ErrorKind::ValueValidation),
        (&["pretrain"], ErrorKind::MissingRequiredArgument),
        (&["nonsense"], ErrorKind::InvalidSubcommand),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.kind(), kind, "{line:?}: {error}");
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
    assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
    assert_eq!(parse(&["--version"]).unwrap_err().exit_code(), 0);
}

#[test]
fn empty_prompts_say_what_to_do() {
    for empty in ["", " \n\t"] {
        let args = run_args(&["run", empty]);
        let error = args.prompt.read(false).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--prompt-ids"), "{error}");
    }
    let args = run_args(&["run", "--prompt-ids", "1"]);
    assert_eq!(args.prompt.read(true).unwrap_err().exit_code(), 2);
}

#[test]
fn prompt_files_lose_one_line_break_and_must_be_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.txt");
    for (bytes, text) in [
        (&b"a b\n"[..], Some("a b")),
        (b"a\n\n", Some("a\n")),
        (b"a\r\n", Some("a")),
        (b"\n", Some("")),
        (b"ab\xff", None),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let read = args::read_prompt(&file);
        match text {
            Some(text) => assert_eq!(read.unwrap(), text),
            None => assert!(read.unwrap_err().to_string().contains("byte 2")),
        }
    }
    let missing = args::read_prompt(&dir.path().join("none")).unwrap_err();
    assert_eq!(missing.exit_code(), 1);
    assert!(missing.to_string().contains("Check the path"));
}

#[test]
fn flags_lie_over_settings() {
    let args = run_args(&[
        "run",
        "a",
        "--temperature",
        "0.7",
        "--top-k",
        "3",
        "--seed",
        "9",
        "--renyi",
        "1,inf",
        "--topk-share",
        "0.05",
        "--top",
        "0",
        "--states",
        "normed",
        "--lens-temperature",
        "2",
    ]);
    let mut settings = Settings::default();
    settings.sampling.top_p = Some(0.5);
    args.reading.sampling.lay_over(&mut settings.sampling);
    args.reading.lens.lay_over(&mut settings.lens);
    assert_eq!(settings.sampling.temperature, 0.7);
    assert_eq!(settings.sampling.top_k, Some(3));
    assert_eq!(settings.sampling.top_p, Some(0.5));
    assert_eq!(settings.sampling.seed, 9);
    assert_eq!(settings.lens.renyi, [1.0, f64::INFINITY]);
    assert_eq!(settings.lens.topk_shares, [0.05]);
    assert_eq!(settings.lens.top, 0);
    assert_eq!(settings.lens.temperature, 2.0);
    assert!(parse(&["--device", "tpu"]).is_err());
    #[cfg(not(feature = "cuda"))]
    {
        let common = parse(&["--device", "cuda:1"]).unwrap().common;
        let error = common.lay_over(&mut settings).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--features cuda"), "{error}");
    }
}

#[test]
fn completions_exist_for_every_shell() {
    use clap::ValueEnum;
    for shell in clap_complete::Shell::value_variants() {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "entroscope", &mut script);
        assert!(!script.is_empty());
    }
}

//! The real binary in a pseudo-terminal: it starts, streams, quits, and leaves the terminal as it found it.

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Long enough for a debug build on a busy machine; only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(60);

struct Screen {
    child: Box<dyn Child + Send + Sync>,
    master: Option<Box<dyn MasterPty + Send>>,
    writer: Option<Box<dyn Write + Send>>,
    parser: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
    home: tempfile::TempDir,
}

impl Screen {
    fn open(rows: u16, cols: u16, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let size = PtySize {
            rows,
            cols,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pty = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_entroscope"));
        command.args(arguments);
        command.env("TERM", "xterm-256color");
        command.env("COLORTERM", "truecolor");
        command.env("ENTROSCOPE_CONFIG_DIR", home.path());
        command.env("XDG_STATE_HOME", home.path());
        command.cwd(home.path());
        let child = pty.slave.spawn_command(command).unwrap();
        drop(pty.slave);
        let mut reader = pty.master.try_clone_reader().unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, cols, 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (seen, bytes) = (parser.clone(), raw.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 1 << 14];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap().process(&buffer[..n]);
                bytes.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        let writer = Some(pty.master.take_writer().unwrap());
        Self {
            child,
            master: Some(pty.master),
            writer,
            parser,
            raw,
            home,
        }
    }

    fn type_in(&mut self, keys: &str) {
        let writer = self.writer.as_mut().unwrap();
        writer.write_all(keys.as_bytes()).unwrap();
        writer.flush().unwrap();
    }

    fn contents(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Wait until the screen satisfies `holds`.
    fn wait(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let began = Instant::now();
        while !holds(&self.contents()) {
            assert!(
                began.elapsed() < DEADLINE,
                "{what} never came:\n{}",
                self.contents()
            );
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Wait for the process to end and return its exit code.
    fn ended(&mut self) -> u32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.exit_code();
            }
            assert!(
                began.elapsed() < DEADLINE,
                "it does not end:\n{}",
                self.contents()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The terminal is back on its main screen, with its cursor, without mouse or paste reports.
    fn restored(&self) {
        let began = Instant::now();
        loop {
            let parser = self.parser.lock().unwrap();
            let screen = parser.screen();
            let clean = !screen.alternate_screen()
                && !screen.hide_cursor()
                && !screen.bracketed_paste()
                && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None;
            if clean {
                return;
            }
            drop(parser);
            assert!(began.elapsed() < DEADLINE, "the terminal was not restored");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.process_id().unwrap().to_string();
        // The shell's own `kill`: not every machine has the program.
        let sent = std::process::Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_prompt_is_typed_streamed_and_quit() {
    let mut screen = Screen::open(36, 120, &[]);
    screen.wait("the model", |s| {
        s.contains("demo") && s.contains("12 blocks")
    });
    assert!(screen.parser.lock().unwrap().screen().alternate_screen());
    screen.type_in("Once upon a time");
    screen.wait("the typed prompt", |s| s.contains("Once upon a time"));
    screen.type_in("\r");
    screen.wait("tokens", |s| s.contains("tok/s"));
    screen.wait("the map", |s| s.contains("states ×"));
    // Ctrl-C first stops the run, then ends the program.
    screen.type_in("\x03");
    // A short text may have come to its end before the key arrived, which then ended the program.
    let began = Instant::now();
    let halted = |s: &str| s.contains("stopped") || s.contains("end of text");
    while !halted(&screen.contents()) && screen.child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < DEADLINE, "the run does not end");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    if screen.child.try_wait().unwrap().is_none() {
        screen.type_in("\x03");
    }
    let code = screen.ended();
    screen.restored();
    assert!(code == 0 || code == 130, "exit code {code}");
}

#[test]
fn a_masked_model_fills_gaps_on_the_screen() {
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert");
    let mut screen = Screen::open(36, 120, &["--model", &model.display().to_string()]);
    screen.wait("the model", |s| s.contains("fills [MASK]"));
    screen.type_in("The [MASK] says what one layer [MASK]\r");
    screen.wait("the predictions", |s| {
        s.contains("predictions at [MASK] 2 · layer 3") && s.contains("text read")
    });
    assert!(!screen.contents().contains("tok/s"));
    screen.type_in(">");
    screen.wait("the next gap", |s| s.contains("predictions at [MASK] 9"));
    screen.type_in("C");
    screen.wait("the answer", |s| s.contains("draws no tokens"));
    screen.type_in("q");
    assert_eq!(screen.ended(), 0);
    screen.restored();
}

/// Steered in the middle of a story, replayed, exported: what the files say is what was done.
#[test]
fn a_story_is_steered_on_its_way_replayed_and_exported() {
    let mut screen = Screen::open(36, 120, &["-n", "4000"]);
    screen.wait("the model", |s| s.contains("12 blocks"));
    screen.type_in("Jack went to the river with his dog.\r");
    // The story may be over before a frame says that it streams.
    let began = |s: &str| s.contains("streaming") || s.contains("end of text");
    screen.wait("tokens", began);
    screen.type_in(" ");
    screen.wait("the pause", |s| {
        s.contains("paused") || s.contains("end of text")
    });
    screen.type_in("s");
    screen.wait("the panel", |s| s.contains("[ ] mood ×−0.30 layers 4–12"));
    screen.type_in("\r");
    screen.wait("the push", |s| s.contains("in force: mood ×−0.30"));
    screen.type_in("\x1b");
    screen.wait("the panel to close", |s| !s.contains("in force:"));
    let mixed = "under more than one plan";
    let began = Instant::now();
    // A step that comes before the one before it is done holds the run instead.
    while !screen.contents().contains(mixed) {
        assert!(began.elapsed() < DEADLINE, "{}", screen.contents());
        screen.type_in(".");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    screen.wait("rest", |s| !s.contains("streaming"));
    screen.type_in("x");
    screen.wait("the first export", |s| s.contains("Wrote"));
    screen.type_in("a");
    screen.wait("one plan", |s| {
        !s.contains(mixed) && s.contains("steered by mood")
    });
    screen.type_in("x");
    let exported = |n: usize| {
        screen
            .home
            .path()
            .join(format!("entroscope-runs/run-00{n}"))
    };
    let began = Instant::now();
    while !exported(2).join("manifest.json").exists() {
        assert!(began.elapsed() < DEADLINE, "{}", screen.contents());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let read = |n: usize, file: &str| std::fs::read_to_string(exported(n).join(file)).unwrap();
    let manifest = |n: usize| -> serde_json::Value {
        serde_json::from_str(&read(n, "manifest.json")).unwrap()
    };
    let before = manifest(1);
    assert!(before["steering"].is_null());
    let turn = before["steering_changes"][0]["position"].as_u64().unwrap();
    assert_eq!(
        before["steering_changes"][0]["steering"][0]["strength"],
        -0.3
    );
    let after = manifest(2);
    assert_eq!(after["steering"][0]["path"], "mood");
    assert!(after["steering_changes"].is_null());
    assert_eq!(
        read(1, "tokens.csv").lines().count(),
        read(2, "tokens.csv").lines().count()
    );
    // Before the turn the pushed layers say something else now, those below them what they said.
    let entropies = |n: usize| -> Vec<(u64, u64, String)> {
        let text = read(n, "cells.csv");
        let mut table = csv::Reader::from_reader(text.as_bytes());
        let header = table.headers().unwrap().clone();
        let column = |name: &str| header.iter().position(|h| h == name).unwrap();
        let [position, layer, entropy] = ["position", "layer", "entropy"].map(column);
        let rows = table.records().map(Result::unwrap);
        let number = |field: &str| field.parse().unwrap();
        rows.map(|row| {
            let at = (number(&row[position]), number(&row[layer]));
            (at.0, at.1, row[entropy].to_owned())
        })
        .collect()
    };
    let mut compared = 0;
    for (a, b) in entropies(1).iter().zip(&entropies(2)) {
        assert_eq!((a.0, a.1), (b.0, b.1));
        if a.0 < turn && (a.1 < 4 || a.1 == 12) {
            assert_eq!(a.2 == b.2, a.1 < 4, "position {}, layer {}", a.0, a.1);
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
    screen.type_in("q");
    screen.type_in("\r");
    assert_eq!(screen.ended(), 0);
    screen.restored();
}

#[test]
fn signals_restore_the_terminal() {
    for name in ["TERM", "INT", "HUP"] {
        let mut screen = Screen::open(24, 80, &[]);
        screen.wait("the first frame", |s| s.contains("entroscope"));
        screen.signal(name);
        let code = screen.ended();
        assert_ne!(code, 0, "SIG{name} should show in the exit code");
        screen.restored();
    }
}

#[test]
fn an_early_error_leaves_the_terminal_alone_and_says_what_is_wrong() {
    let mut screen = Screen::open(24, 80, &["--prompt-file", "/no/such/file"]);
    assert_eq!(screen.ended(), 1);
    screen.wait("the message", |s| s.contains("/no/such/file"));
    screen.restored();
}

#[test]
fn a_dead_terminal_ends_the_process() {
    let mut screen = Screen::open(24, 80, &[]);
    screen.wait("the first frame", |s| s.contains("entroscope"));
    drop(screen.writer.take());
    drop(screen.master.take());
    screen.signal("HUP");
    screen.ended();
    assert!(!screen.raw.lock().unwrap().is_empty());
}

//! How fast it is: `cargo bench`. Ratios within one run are what to compare; absolute numbers belong to one machine.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

mod checkpoint;

use checkpoint::{GPT2_SMALL, LLAMA, Shape};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use entroscope::model::decoder::{Row, Taps};
use entroscope::model::gguf::GgufType;
use entroscope::model::{LoadOptions, Model};
use entroscope::pages::HugePages;
use entroscope::session::bench::{self, Plan};
use entroscope::session::{self, Event, Generation, Job, Prompt};
use entroscope::tui::colour::Depth;
use entroscope::tui::{fixture, view};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::hint::black_box;
use std::io::Read;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

const PROMPT: &str = "Once upon a time, there was a little girl named Lily. She";

fn demo() -> Model {
    Model::load("demo", &LoadOptions::default(), &mut |_, _, _| {})
        .expect("the embedded model loads")
}

fn job(new: usize) -> Job {
    let mut job = Job::new(Prompt::Text(PROMPT.into()), new);
    job.ignore_eos = true;
    job
}

/// Tokens a second on the embedded model: with the full lens, and the plain forward beside it.
fn decode(c: &mut Criterion) {
    const NEW: u64 = 64;
    let model = demo();
    let mut group = c.benchmark_group("embedded model, 64 tokens");
    group.throughput(Throughput::Elements(NEW)).sample_size(20);
    group.bench_function("full lens", |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let mut ignore = |event: Event| drop(black_box(event));
                let mut run =
                    Generation::start(&model, job(NEW as usize), &mut ignore).expect("starts");
                // The prompt is not what is measured.
                while run.drawn() == 0 {
                    run.advance(&model, &mut ignore).expect("reads");
                }
                let began = Instant::now();
                run.extend(NEW as usize);
                while run.advance(&model, &mut ignore).expect("draws").is_none() {}
                total += began.elapsed();
            }
            total
        });
    });
    let tokens = model.tokenizer().encode(PROMPT, true).expect("encodes");
    group.bench_function("no lens", |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let decoder = model.decoder();
                let mut state = decoder.state();
                let mut next = tokens.clone();
                let mut began = Instant::now();
                for step in 0..=NEW {
                    let mut rows = [Row::new(&next, Some(&mut state))];
                    let traced = decoder.forward(&mut rows, Taps::default()).expect("reads");
                    let last = traced
                        .last
                        .narrow(0, next.len() - 1, 1)
                        .expect("has a last row");
                    let logits = decoder
                        .head(&decoder.final_norm(&last).expect("norms"))
                        .expect("heads");
                    let logits: Vec<f32> = logits
                        .flatten_all()
                        .and_then(|t| t.to_vec1())
                        .expect("reads");
                    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                    next = vec![best.map_or(0, |b| b.0 as u32)];
                    if step == 0 {
                        began = Instant::now();
                    }
                }
                total += began.elapsed();
            }
            total
        });
    });
    group.finish();
}

fn plan(model: &Model, steps: usize) -> Plan {
    Plan {
        prompt: Plan::tokens(model, 32),
        new_tokens: steps,
        prefill: Plan::tokens(model, 256),
    }
}

/// So many steps of decoding, in runs that stay within the context.
fn timed(model: &Model, rounds: u64, branches: usize, with_lens: bool) -> Duration {
    let (mut left, mut total) = (rounds as usize, Duration::ZERO);
    while left > 0 {
        let count = left.min(64);
        let times = bench::steps(model, &plan(model, count), branches, with_lens);
        total += times.expect("steps").into_iter().sum::<Duration>();
        left -= count;
    }
    total
}

/// Decoding and reading, plain and with the lens, one branch and two, at the sizes that people use.
fn sizes(c: &mut Criterion) {
    for (name, shape) in [("GPT-2 small", GPT2_SMALL), ("llama 250M", LLAMA)] {
        let model = shape.load();
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        for (case, branches, with_lens) in [
            ("decode", 1, false),
            ("decode with the lens", 1, true),
            ("decode two branches", 2, false),
            ("decode two branches with the lens", 2, true),
        ] {
            group.bench_function(case, |b| {
                b.iter_custom(|rounds| timed(&model, rounds, branches, with_lens));
            });
        }
        for blocks in [GgufType::Q8_0, GgufType::Q6_K, GgufType::Q4_K] {
            let model = shape.load_blocks(blocks);
            for (case, with_lens) in [("decode", false), ("decode with the lens", true)] {
                group.bench_function(format!("{case}, weights in {blocks:?}"), |b| {
                    b.iter_custom(|rounds| timed(&model, rounds, 1, with_lens));
                });
            }
        }
        let plan = plan(&model, 1);
        group.throughput(Throughput::Elements(256));
        group.bench_function("read 256 tokens", |b| {
            b.iter(|| bench::prefill(&model, &plan).expect("reads"));
        });
        group.bench_function("read 256 tokens with the lens", |b| {
            b.iter(|| bench::lens_prefill(&model, &plan).expect("reads"));
        });
        group.finish();
    }
}

/// What the lens costs by tokens, layers and vocabulary, printed beside the timings: the last column stays about the same.
fn growth(_: &mut Criterion) {
    println!(
        "tokens  states  vocabulary   with the lens − without   a token, state and 1000 logits"
    );
    let third = GPT2_SMALL.vocab / 3;
    for (layers, vocab) in [
        (4, third),
        (4, 2 * third),
        (4, 3 * third),
        (8, third),
        (12, third),
    ] {
        let shape = Shape {
            layers,
            vocab,
            ..GPT2_SMALL
        };
        let model = shape.load();
        for tokens in [64, 128, 256] {
            let plan = Plan {
                prompt: Vec::new(),
                new_tokens: 0,
                prefill: Plan::tokens(&model, tokens),
            };
            let best = |read: &dyn Fn()| {
                let times = (0..5).map(|_| {
                    let began = Instant::now();
                    read();
                    began.elapsed()
                });
                times.min().unwrap_or_default().as_secs_f64()
            };
            let with = best(&|| bench::lens_prefill(&model, &plan).expect("reads"));
            let without = best(&|| bench::prefill(&model, &plan).expect("reads"));
            let cost = with - without;
            let logits = (tokens * (layers + 1) * vocab) as f64 / 1e3;
            println!(
                "{tokens:>6}  {:>6}  {vocab:>10}   {:>20.1} ms   {:>27.2} µs",
                layers + 1,
                1e3 * cost,
                1e6 * cost / logits
            );
        }
    }
}

/// From Enter to the first token: the prompt read with the full lens, one token drawn.
fn first_token(c: &mut Criterion) {
    let model = demo();
    c.bench_function("first token after Enter", |b| {
        b.iter(|| {
            session::run(&model, &job(1), &mut |event| {
                black_box(event);
                ControlFlow::Continue(())
            })
            .expect("runs")
        });
    });
}

/// One frame of a large screen with a full map.
fn frame(c: &mut Criterion) {
    let state = fixture::state(200, 60, Depth::True, 120).expect("the fixture is sound");
    let mut terminal = Terminal::new(TestBackend::new(200, 60)).expect("a test backend");
    c.bench_function("one frame at 200×60", |b| {
        b.iter(|| {
            terminal.draw(|f| view::render(f, &state)).expect("draws");
        });
    });
}

/// From the start of the process to its first bytes on the screen that are not terminal set-up.
fn start(c: &mut Criterion) {
    let binary = env!("CARGO_BIN_EXE_entroscope");
    let mut group = c.benchmark_group("process");
    group.sample_size(10);
    group.bench_function("start to first frame", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| first_frame(binary)).sum());
    });
    group.finish();
}

fn first_frame(binary: &str) -> Duration {
    let size = PtySize {
        rows: 36,
        cols: 120,
        pixel_width: 0,
        pixel_height: 0,
    };
    let pty = native_pty_system().openpty(size).expect("a pty");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = CommandBuilder::new(binary);
    command.env("TERM", "xterm-256color");
    command.env("COLORTERM", "truecolor");
    command.env("ENTROSCOPE_CONFIG_DIR", folder.path());
    let mut reader = pty.master.try_clone_reader().expect("a reader");
    let began = Instant::now();
    let mut child = pty.slave.spawn_command(command).expect("it starts");
    let mut parser = vt100::Parser::new(36, 120, 0);
    let mut buffer = [0; 1 << 14];
    let elapsed = loop {
        match reader.read(&mut buffer) {
            Ok(0) | Err(_) => panic!("it ended before it drew anything"),
            Ok(n) => parser.process(&buffer[..n]),
        }
        if parser.screen().contents().contains("Prompt") {
            break began.elapsed();
        }
    };
    child.kill().expect("it can be ended");
    child.wait().expect("it ends");
    elapsed
}

/// Bytes written to a 120×36 truecolor terminal while the real binary streams, printed beside the timings: the most in any
/// one second, and in all.
fn traffic(_: &mut Criterion) {
    let size = PtySize {
        rows: 36,
        cols: 120,
        pixel_width: 0,
        pixel_height: 0,
    };
    let pty = native_pty_system().openpty(size).expect("a pty");
    let folder = tempfile::tempdir().expect("a folder");
    let prompt = folder.path().join("prompt.txt");
    std::fs::write(&prompt, PROMPT).expect("a prompt");
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_entroscope"));
    command.args(["-n", "220", "--prompt-file"]);
    command.arg(&prompt);
    command.env("TERM", "xterm-256color");
    command.env("COLORTERM", "truecolor");
    command.env("ENTROSCOPE_CONFIG_DIR", folder.path());
    let mut reader = pty.master.try_clone_reader().expect("a reader");
    let mut child = pty.slave.spawn_command(command).expect("it starts");
    let began = Instant::now();
    let mut parser = vt100::Parser::new(36, 120, 0);
    let mut writes: Vec<(Duration, usize)> = Vec::new();
    let mut buffer = [0; 1 << 14];
    loop {
        let n = reader.read(&mut buffer).expect("it streams");
        assert!(n > 0, "it ended early");
        writes.push((began.elapsed(), n));
        parser.process(&buffer[..n]);
        let screen = parser.screen().contents();
        if ["end of text", "token limit", "context full"]
            .iter()
            .any(|end| screen.contains(end))
        {
            break;
        }
    }
    let second = |from: Duration| {
        let within = writes
            .iter()
            .filter(|w| w.0 >= from && w.0 < from + Duration::from_secs(1));
        within.map(|w| w.1).sum::<usize>()
    };
    let most = writes.iter().map(|w| second(w.0)).max().unwrap_or(0);
    let all: usize = writes.iter().map(|w| w.1).sum();
    println!(
        "terminal traffic at 120×36: {:.1} kB in {:.2} s, at most {:.1} kB in a second",
        all as f64 / 1e3,
        began.elapsed().as_secs_f64(),
        most as f64 / 1e3
    );
    child.kill().expect("it can be ended");
    child.wait().expect("it ends");
}

criterion_group!(
    benches,
    traffic,
    decode,
    sizes,
    growth,
    first_token,
    frame,
    start
);
criterion_main!(benches);

//! A made-up run for tests and benches of the screen: deterministic, shaped like a real one, needing no model.

mod models;
mod sets;

pub use models::{
    OTHER, OTHER_BLOCKS, OTHER_PROMPT, against, asked_against, other_card, other_loaded, two_models,
};
pub use sets::{SETS, sampled, separating, sets};

use super::action::Action;
use super::colour::Depth;
use super::state::{Message, State, update};
use super::{Options, Sample, SampleSet};
use crate::error::{Error, Result};
use crate::lens::LensSettings;
use crate::model::config::LayerKind;
use crate::model::{Mask, ModelCard, Tokenizer};
use crate::session::{Event, Finish, Job, Prompt, Recorder, Speed, Turn};
use crate::steer::{self, ControlVector, Plan, Spec, Strengths};
use crate::trace::{Attention, Candidate, Cells, Curve, Kind, Point, Schema, Set, Side, Token};
use ratatui::layout::Rect;
use std::sync::Arc;
use std::time::Duration;

/// The text of the run, token by token.
pub const TEXT: &[&str] = &[
    "The", " cap", "ital", " of", " Vel", "mora", " is", " Tar", "sin", ".", " It", " lies", " on",
    " the", " river", " Os", "k", ",", " where", " the", " weav", "ers", " hang", " their",
    " blue", " cloth", " every", " spring", ".", " A", " child", " named", " Il", "o", " found",
    " a", " cop", "per", " bell", " in", " the", " re", "eds", " and", " carried", " it", " home",
    " before", " the", " rain", ".", "\n", "His", " mother", " said", " nothing", ";", " she",
    " only", " rang", " it", " once", ",", " and", " the", " whole", " street", " fell", " quiet",
    " to", " listen", ".",
];
/// Tokens of the prompt.
pub const PROMPT: usize = 7;
/// Blocks of the model.
pub const BLOCKS: usize = 12;
const HEADS: usize = 6;
const VOCAB: usize = 4096;

/// The text of position `i`; past its end it begins again.
fn text(position: usize) -> &'static str {
    TEXT[position % TEXT.len()]
}

/// A number between 0 and 1 that depends only on its arguments.
fn noise(a: usize, b: usize) -> f32 {
    let mut x = (a as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (b as u64 + 1).wrapping_mul(0xD1B5_4A32_D192_ED03);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 32;
    (x % 10_000) as f32 / 10_000.0
}

/// The lens of the run: the default one with a longer list of candidates.
#[must_use]
pub fn lens() -> LensSettings {
    LensSettings {
        top: 10,
        ..LensSettings::default()
    }
}

/// The description of the model.
#[must_use]
pub fn card() -> ModelCard {
    ModelCard {
        name: "demo".to_owned(),
        source: "embedded".to_owned(),
        family: "llama".to_owned(),
        blocks: BLOCKS,
        d_model: 192,
        heads: HEADS,
        kv_heads: 2,
        d_mlp: 512,
        vocab: VOCAB,
        context: 1024,
        dtype: "q8_0".to_owned(),
        device: "cpu×2".to_owned(),
        parameters: 6_400_000,
        bytes: 6_900_000,
        causal: true,
        tied_head: true,
        chat_template: true,
        layers: vec![LayerKind::Attention; BLOCKS],
        logit_cap: None,
        mask: None,
        file_bytes: 6_800_000,
        token_bytes: 6144,
        unread: Vec::new(),
        sha256: None,
    }
}

/// A tokenizer that knows the words of the text.
///
/// # Errors
/// Never, unless the tokenizer crate stops reading word lists.
pub fn tokenizer() -> Result<Tokenizer> {
    word_level(TEXT)
}

fn word_level(text: &[&str]) -> Result<Tokenizer> {
    let mut vocab = serde_json::Map::new();
    for word in text {
        let id = vocab.len();
        vocab.entry(*word).or_insert_with(|| id.into());
    }
    let file = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": text.first() },
    });
    Tokenizer::from_bytes(file.to_string().as_bytes(), "fixture")
}

/// The id of the token at a position.
fn id(position: usize) -> u32 {
    let word = text(position);
    let mut seen: Vec<&str> = Vec::new();
    for w in TEXT {
        if !seen.contains(w) {
            seen.push(w);
        }
    }
    seen.iter().position(|w| *w == word).unwrap_or(0) as u32
}

/// The token of a position.
#[must_use]
pub fn token(position: usize) -> Token {
    Token {
        id: id(position),
        bytes: text(position).as_bytes().to_vec(),
        kind: if position < PROMPT {
            Kind::Prompt
        } else {
            Kind::Generated
        },
        seconds: 0.01 * position as f64,
    }
}

/// How unsure the model stays about the next token: little inside a word, much where a name or an idea begins.
fn openness(position: usize) -> f32 {
    let next = text(position + 1);
    let starts = next.starts_with(' ');
    let base = if starts { 0.34 } else { 0.03 };
    (base + noise(position, 7).powi(3) * if starts { 0.5 } else { 0.06 }).min(0.8)
}

/// What the lens read at a position.
#[must_use]
pub fn cells(position: usize) -> Cells {
    let schema = Schema::new(&lens());
    let most = (VOCAB as f32).ln();
    let decide = 0.3 + 0.6 * noise(position, 3);
    let mut values = Vec::new();
    let mut top = Vec::new();
    for layer in 0..=BLOCKS {
        let depth = layer as f32 / BLOCKS as f32;
        // Certainty comes as a soft step at the deciding depth; the tied embedding row knows only its own token.
        let step = 1.0 / (1.0 + (-(depth - decide) * 14.0).exp());
        let open = openness(position);
        let share = if layer == 0 {
            0.02
        } else {
            (1.0 - step) * (0.82 + 0.12 * noise(position, layer)) + step * open
        };
        let entropy = share * most;
        let first = (-entropy * 0.55).exp();
        for spec in schema.metrics() {
            let jitter = noise(position * 31 + layer, spec.name.len());
            let value = match spec.name.as_str() {
                "entropy" => entropy,
                "varentropy" => 9.0 * share * (1.0 - share) + jitter,
                "prob_margin" => first * (0.5 + 0.5 * step),
                "logit_margin" => 6.0 * first,
                "max_prob" => first,
                "perplexity" => entropy.exp(),
                "kl_uniform" => most - entropy,
                "kl_final" | "kl_from_final" => (1.0 - step) * 5.0 * (1.0 - depth),
                "surprisal" => entropy * (0.3 + jitter),
                "next_rank" => (1.0 + entropy.exp() * 0.2 * jitter).round(),
                "hoyer" => 0.22 + 0.2 * depth + 0.05 * jitter,
                "effective_rank_sq" => 0.5 - 0.2 * depth + 0.04 * jitter,
                "l0" => 188.0 + (4.0 * jitter).round(),
                "l1" => 40.0 + 300.0 * depth,
                "l2" => 4.0 + 40.0 * depth,
                name if name.starts_with("renyi") => entropy * 0.9,
                name if name.starts_with("topk") => 0.3 + 0.3 * depth,
                _ => 0.3 + 0.2 * jitter,
            };
            values.push(value);
        }
        let here = id(position + 1);
        let agrees = depth >= decide || layer == BLOCKS;
        let mut left = 1.0f32;
        for k in 0..schema.top() {
            let prob = (first * 0.6f32.powi(k as i32)).min(left * 0.97);
            left = (left - prob).max(0.0);
            let other = id(position + 1 + (k + layer * 3 + 1) * 7 % TEXT.len());
            let id = if k == 0 && agrees { here } else { other };
            top.push(Candidate { id, prob });
        }
    }
    let decided = (0..=BLOCKS)
        .find(|l| *l as f32 / BLOCKS as f32 >= decide)
        .unwrap_or(BLOCKS);
    Cells {
        values: values.into(),
        top: top.into(),
        decided_layer: Some(decided as u32),
        attention: Some(attention(position, position + 1)),
        divergence: None,
        plan: 0,
    }
}

fn attention(position: usize, keys: usize) -> Attention {
    let mut rows = Vec::new();
    let mut entropy = Vec::new();
    for layer in 0..BLOCKS {
        for head in 0..HEADS {
            let sharp = 1.0 + 9.0 * noise(layer, head);
            let raw: Vec<f32> = (0..keys)
                .map(|k| (sharp * noise(layer * 97 + head, position * 131 + k)).exp())
                .collect();
            let sum: f32 = raw.iter().sum();
            let row: Vec<f32> = raw.iter().map(|v| v / sum).collect();
            entropy.push(-row.iter().map(|p| p * p.max(1e-30).ln()).sum::<f32>());
            rows.extend(row);
        }
    }
    let most = (keys as f32).ln();
    let norm: Vec<f32> = entropy
        .iter()
        .map(|h| if keys > 1 { h / most } else { f32::NAN })
        .collect();
    let mean: Vec<f32> = entropy
        .chunks(HEADS)
        .map(|h| h.iter().sum::<f32>() / HEADS as f32)
        .collect();
    Attention {
        heads: HEADS,
        varentropy: entropy.iter().map(|h| h * 0.5).collect(),
        entropy_norm: norm.into(),
        head_var: mean.iter().map(|m| m * 0.2).collect(),
        disagreement: mean.iter().map(|m| m * 0.01).collect(),
        mean: mean.into(),
        entropy: entropy.into(),
        rows: Some(rows.into()),
    }
}

/// A text for a masked model, word by word: its vocabulary spells no spaces.
pub const MASKED: &[&str] = &[
    "[CLS]", "the", "river", "keeps", "its", "[MASK]", "time", ".", "a", "child", "of", "the",
    "[MASK]", "looks", "at", "it", ".", "[SEP]",
];
/// Where its gaps are.
pub const GAPS: [usize; 2] = [5, 12];

/// A masked model is there.
///
/// # Errors
/// As [`tokenizer`].
pub fn masked_loaded() -> Result<Event> {
    let tokenizer = word_level(MASKED)?;
    let text = "[MASK]".to_owned();
    let mask = tokenizer.id(&text).map(|id| Mask { id, text });
    let card = ModelCard {
        name: "masked".to_owned(),
        family: "bert".to_owned(),
        context: 512,
        dtype: "f32".to_owned(),
        causal: false,
        chat_template: false,
        token_bytes: 0,
        mask,
        ..card()
    };
    Ok(Event::Loaded {
        card: Arc::new(card),
        tokenizer: Arc::new(tokenizer),
    })
}

/// What the lens read of the masked text at a position: no token comes next, and every head sees all of the text.
fn masked_cells(position: usize, tokenizer: &Tokenizer) -> Cells {
    let schema = Schema::new(&lens());
    let mut cells = cells(position);
    for (i, spec) in schema.metrics().iter().enumerate() {
        if matches!(spec.name.as_str(), "surprisal" | "next_rank") {
            let values = cells.values.iter_mut().skip(i).step_by(schema.len());
            values.for_each(|value| *value = f32::NAN);
        }
    }
    let here = MASKED.get(position).and_then(|word| tokenizer.id(word));
    let size = tokenizer.size().max(1);
    for (i, candidate) in cells.top.iter_mut().enumerate() {
        // Words stand for themselves, gaps for some other word.
        let (layer, k) = (i / schema.top().max(1), i % schema.top().max(1));
        let id = match here.filter(|_| k == 0 && layer > BLOCKS / 2) {
            Some(id) if !GAPS.contains(&position) => id as usize,
            _ => 1 + (position + 3 * k + layer / 4) % (size - 1),
        };
        candidate.id = id as u32;
    }
    cells.attention = Some(attention(position, MASKED.len()));
    cells
}

/// The events of the masked text: all of it at once.
///
/// # Errors
/// As [`tokenizer`].
pub fn masked_read() -> Result<Vec<Event>> {
    let tokenizer = word_level(MASKED)?;
    let mut events = vec![Event::Started {
        schema: Arc::new(Schema::new(&lens())),
        prompt_tokens: MASKED.len(),
        max_new_tokens: 0,
    }];
    events.extend(MASKED.iter().map(|word| {
        Event::Token(Token {
            id: tokenizer.id(word).unwrap_or(0),
            bytes: word.as_bytes().to_vec(),
            kind: Kind::Prompt,
            seconds: 0.0,
        })
    }));
    events.extend((0..MASKED.len()).map(|position| Event::Cells {
        position,
        cells: Arc::new(masked_cells(position, &tokenizer)),
    }));
    events.push(Event::Finished(Finish::Read));
    Ok(events)
}

/// A state after a masked model has read its text.
///
/// # Errors
/// As [`tokenizer`].
pub fn masked(width: u16, height: u16, depth: Depth) -> Result<State> {
    let mut state = State::new(&options(), depth, Rect::new(0, 0, width, height))?;
    update(&mut state, masked_loaded()?);
    state
        .prompt
        .set("The river keeps its [MASK] time. A child of the [MASK] looks at it.");
    state.writing = false;
    for event in masked_read()? {
        update(&mut state, event);
    }
    state.settle();
    Ok(state)
}

/// The model is there.
///
/// # Errors
/// As [`tokenizer`].
pub fn loaded() -> Result<Event> {
    Ok(Event::Loaded {
        card: Arc::new(card()),
        tokenizer: Arc::new(tokenizer()?),
    })
}

/// A run of `tokens` drawn tokens begins.
#[must_use]
pub fn started(max_new_tokens: usize) -> Event {
    Event::Started {
        schema: Arc::new(Schema::new(&lens())),
        prompt_tokens: PROMPT,
        max_new_tokens,
    }
}

/// The events of the token at `position`: the position before it has been read, then it was drawn.
#[must_use]
pub fn drawn(position: usize) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(before) = position.checked_sub(1) {
        events.push(Event::Cells {
            position: before,
            cells: Arc::new(cells(before)),
        });
    }
    events.push(Event::Token(token(position)));
    events.push(Event::Speed(Speed {
        tokens_per_second: 212.0,
        first_token_seconds: 0.04,
        lens_ms: 0.4,
    }));
    events
}

/// Options with three sample sets.
#[must_use]
pub fn options() -> Options {
    let set = |name: &str, prompts: [&str; 2]| SampleSet {
        name: name.to_owned(),
        samples: prompts
            .iter()
            .map(|p| Sample {
                prompt: (*p).to_owned(),
                answer: Some("Tarsin".to_owned()),
            })
            .collect(),
        masked: false,
        role: None,
    };
    let mut options = Options {
        samples: vec![
            set(
                "a known fact",
                ["The capital of Velmora is", "The river of Tarsin is the"],
            )
            .as_set(Set::Known),
            set(
                "close to one",
                ["The capital of Velmira is", "The river of Tarsen is the"],
            )
            .as_set(Set::Unknown),
            set("a story", ["Once, by the river Osk,", "A child named Ilo"]),
            set(
                "a gap in a sentence",
                [
                    "The river keeps its [MASK] time.",
                    "A child of the [MASK] looks at it.",
                ],
            )
            .with_gaps(),
        ],
        ..Options::default()
    };
    options.job.lens = lens();
    options
}

/// A state in the middle of a run of 128 tokens of which `tokens` (prompt included) are there.
///
/// # Errors
/// As [`tokenizer`].
pub fn state(width: u16, height: u16, depth: Depth, tokens: usize) -> Result<State> {
    let mut state = State::new(&options(), depth, Rect::new(0, 0, width, height))?;
    update(&mut state, loaded()?);
    state.prompt.set("The capital of Velmora is");
    state.writing = false;
    update(&mut state, started(128));
    for position in 0..tokens {
        for event in drawn(position) {
            update(&mut state, event);
        }
    }
    state.settle();
    Ok(state)
}

/// The same run, ended after `tokens`.
///
/// # Errors
/// As [`tokenizer`].
pub fn finished(width: u16, height: u16, depth: Depth, tokens: usize) -> Result<State> {
    let mut state = state(width, height, depth, tokens)?;
    state.clock.elapsed = Duration::from_secs(3);
    update(&mut state, Event::Finished(Finish::Length));
    update(&mut state, Message::Resize(width, height));
    Ok(state)
}

/// Where the texts of [`compared`] part.
pub const PARTS: usize = 16;

/// A plan of one made-up push of strength `strength` is in force, from `turn` on in the run at hand.
///
/// # Errors
/// Never, unless a made-up vector stops fitting the made-up model.
pub fn steered(strength: f64, turn: Option<Turn>) -> Result<Event> {
    let mut plan = Plan::default();
    let directions = (4..=BLOCKS).map(|layer| (layer, vec![0.1; 192])).collect();
    let spec = Spec {
        strength,
        layers: Some(4..=BLOCKS),
        ..Spec::new(steer::Effect::Vector("mood".into()))
    };
    let vector = ControlVector::new(directions).map_err(Error::Usage)?;
    plan.push(&spec, &vector, &card())?;
    Ok(Event::Steered {
        plan,
        turn,
        remarks: Vec::new(),
    })
}

/// What the lens read at a position of the steered branch: later layers are surer or less sure, by turns of the text.
fn steered_cells(position: usize) -> Cells {
    let schema = Schema::new(&lens());
    let mut cells = cells(position);
    for layer in 4..=BLOCKS {
        let depth = (layer - 3) as f32 / (BLOCKS - 3) as f32;
        let push = depth * (noise(position, 11) - 0.4);
        for name in ["entropy", "varentropy", "surprisal", "prob_margin"] {
            if let Some(metric) = schema.find(name) {
                let value = &mut cells.values[layer * schema.len() + metric.0];
                *value *= 1.0 + push;
            }
        }
    }
    let near = |layer: usize| match layer {
        0..4 => 0.0,
        layer => 0.4 * noise(position, layer) * (layer - 3) as f32 / 9.0,
    };
    cells.divergence = (position < PARTS).then(|| (0..=BLOCKS).map(near).collect());
    cells.plan = 1;
    cells
}

/// The events of a comparison of which both branches have `tokens`.
#[must_use]
pub fn comparison(tokens: usize) -> Vec<Event> {
    let side = |side: Side, event: Event| Event::Side(side, Box::new(event));
    let mut events: Vec<Event> = Side::BOTH.map(|s| side(s, started(64))).into();
    for position in 0..tokens {
        for (s, cells) in [
            (Side::A, cells as fn(usize) -> Cells),
            (Side::B, steered_cells),
        ] {
            if let Some(before) = position.checked_sub(1) {
                let cells = Arc::new(cells(before));
                let position = before;
                events.push(side(s, Event::Cells { position, cells }));
            }
            let mut here = token(position);
            if s == Side::B && position >= PARTS {
                let other = token(position + 11);
                (here.id, here.bytes) = (other.id, other.bytes);
            }
            events.push(side(s, Event::Token(here)));
        }
    }
    events
}

/// A state in the middle of a comparison of which both branches have `tokens`.
///
/// # Errors
/// As [`tokenizer`] and [`steered`].
pub fn compared(width: u16, height: u16, depth: Depth, tokens: usize) -> Result<State> {
    let mut state = State::new(&options(), depth, Rect::new(0, 0, width, height))?;
    update(&mut state, loaded()?);
    state.prompt.set("The capital of Velmora is");
    state.writing = false;
    update(&mut state, Action::CompareFree);
    update(&mut state, steered(-0.3, None)?);
    for event in comparison(tokens) {
        update(&mut state, event);
    }
    state.settle();
    Ok(state)
}

/// A state with a sweep over nine strengths open, of which `done` have come.
///
/// # Errors
/// As [`compared`].
pub fn swept(width: u16, height: u16, depth: Depth, done: usize) -> Result<State> {
    let mut state = compared(width, height, depth, 20)?;
    update(&mut state, Action::Sweep);
    let schema = Arc::new(Schema::new(&lens()));
    let strengths = Strengths::new(-0.6, 0.6, 9).map_err(Error::Usage)?;
    let curve = Curve::new(Arc::clone(&schema), BLOCKS + 1, Arc::clone(strengths.all()));
    update(&mut state, Event::Sweeping(curve));
    let point = |push: f32| {
        let cells = (PROMPT..19).map(|position| {
            let mut cells = steered_cells(position);
            let plain = self::cells(position);
            for (value, plain) in cells.values.iter_mut().zip(&plain.values) {
                *value = plain + push * (*value - plain);
            }
            if let Some(divergence) = &mut cells.divergence {
                divergence.iter_mut().for_each(|kl| *kl *= push * push);
            }
            Arc::new(cells)
        });
        let cells: Vec<Arc<Cells>> = cells.collect();
        Arc::new(Point::of(&cells, BLOCKS + 1, schema.len()))
    };
    let points = (0..done).map(|at| (Some(at), strengths.all()[at] as f32 * 4.0));
    for (strength, push) in std::iter::once((None, 0.0)).chain(points) {
        let point = point(push);
        update(&mut state, Event::Swept { strength, point });
    }
    state.settle();
    Ok(state)
}

/// The sweep of [`swept`] ends.
///
/// # Errors
/// Never, unless a made-up job stops being one.
pub fn sweep_ended() -> Result<Event> {
    let job = Job::new(Prompt::Text("The capital of Velmora is".to_owned()), 12);
    let recorder = Recorder::of_branch(Arc::new(card()), &job, "baseline");
    Ok(Event::SweepEnded(Box::new(recorder.into_record())))
}

/// A state with a pair of prompts side by side, of which both branches have `tokens`.
///
/// # Errors
/// As [`tokenizer`].
pub fn paired(width: u16, height: u16, depth: Depth, tokens: usize) -> Result<State> {
    let mut state = State::new(&options(), depth, Rect::new(0, 0, width, height))?;
    update(&mut state, loaded()?);
    update(&mut state, Action::ComparePrompts);
    for mut event in comparison(tokens) {
        // Two texts: nothing is said of the distance between their cells.
        if let Event::Side(_, event) = &mut event
            && let Event::Cells { cells, .. } = &mut **event
        {
            let cells = Arc::make_mut(cells);
            (cells.divergence, cells.plan) = (None, 0);
        }
        update(&mut state, event);
    }
    state.settle();
    Ok(state)
}

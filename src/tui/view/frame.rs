//! The lines between rooms and the titles in them. Neighbours share a line; the room with the keys has a brighter one.
//!
//! ```text
//! ╭ Stream ──── 27 + 21 tokens ┬ Cell · layer 9 · token 31 ─╮
//! ├ Entropy (nats) · 13 states × 48 tokens · … ─── f follow ┤
//! ```

use super::{difference, has_keys, put_line, sets};
use crate::trace::{Pairing, Side};
use crate::tui::action::Action;
use crate::tui::keymap::Context;
use crate::tui::layout::{Mode, Room, SetPane};
use crate::tui::show;
use crate::tui::state::{Gap, Phase, Run, Scale, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::merge::MergeStrategy;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};

/// Paint all lines and titles.
pub fn paint(buf: &mut Buffer, state: &State) {
    let plan = &state.derived.plan;
    if plan.mode == Mode::Tabs {
        return headers(buf, state);
    }
    let panes = SetPane::ALL.map(|pane| (plan.sets.of(pane), !state.writing));
    let boxes = [
        (plan.stream, has_keys(state, Room::Stream)),
        (plan.beside_stream, has_keys(state, Room::Stream)),
        (plan.map, has_keys(state, Room::Map)),
        (plan.beside_map, has_keys(state, Room::Map)),
        (plan.difference, has_keys(state, Room::Map)),
        (plan.summary, has_keys(state, Room::Cell)),
        (plan.cell, has_keys(state, Room::Cell)),
        (plan.profile, false),
        (plan.attention, false),
        (plan.prompt, state.writing),
    ];
    let boxes = || boxes.iter().chain(&panes);
    // The brighter line goes over its neighbours' lines, and titles over all lines.
    for focused in [false, true] {
        for (area, _) in boxes().filter(|(a, f)| *f == focused && !a.is_empty()) {
            let style = if focused {
                state.theme.focus
            } else {
                state.theme.border
            };
            Block::bordered()
                .merge_borders(MergeStrategy::Exact)
                .border_style(style)
                .render(*area, buf);
        }
    }
    let whole = Rect {
        width: plan.prompt.width,
        ..match state.sets {
            Some(_) => plan.sets.profiles.union(plan.prompt),
            None => plan.stream.union(plan.prompt),
        }
    };
    round_corners(buf, whole);
    for (area, left, right) in [
        (plan.stream, stream_title(state), stream_note(state)),
        (plan.map, map_title(state), map_note(state)),
        (plan.beside_stream, beside_title(state), beside_note(state)),
        (plan.beside_map, beside_map_title(state), Line::default()),
        (plan.difference, gap_title(state), gap_note(state)),
        (plan.summary, summary_title(state), summary_note(state)),
        (plan.cell, cell_title(state), Line::default()),
        (plan.profile, profile_title(state), Line::default()),
        (plan.attention, attention_title(state), Line::default()),
        (plan.prompt, prompt_title(state), steering_note(state)),
    ] {
        titles(buf, area, &left, &right);
    }
    for pane in SetPane::ALL {
        let title = sets::pane_title(state, pane);
        titles(buf, plan.sets.of(pane), &title, &Line::default());
    }
}

fn titles(buf: &mut Buffer, area: Rect, left: &Line<'_>, right: &Line<'_>) {
    if area.width < 8 {
        return;
    }
    let inside = Rect {
        x: area.x + 1,
        width: area.width - 2,
        height: 1,
        ..area
    };
    put_line(buf, inside, 1, 0, left);
    let (l, r) = (left.width() as u16, right.width() as u16);
    if r > 0 && l + r + 2 <= inside.width {
        put_line(buf, inside, inside.width - r - 1, 0, right);
    }
}

fn round_corners(buf: &mut Buffer, area: Rect) {
    let (right, bottom) = (area.right() - 1, area.bottom() - 1);
    for (x, y, plain, round) in [
        (area.x, area.y, "┌", "╭"),
        (right, area.y, "┐", "╮"),
        (area.x, bottom, "└", "╰"),
        (right, bottom, "┘", "╯"),
    ] {
        if let Some(cell) = buf.cell_mut((x, y)).filter(|c| c.symbol() == plain) {
            cell.set_symbol(round);
        }
    }
}

/// A title of parts: the first stands out.
pub fn title(state: &State, focused: bool, first: &str, rest: &str) -> Line<'static> {
    let head = if focused {
        state.theme.focus.patch(
            state
                .theme
                .title
                .fg(state.theme.focus.fg.unwrap_or_default()),
        )
    } else {
        state.theme.title
    };
    let mut spans = vec![Span::styled(format!(" {first} "), head)];
    if !rest.is_empty() {
        spans.push(Span::styled(format!("{rest} "), state.theme.muted));
    }
    Line::from(spans)
}

/// The names of branches above their parts of a room, where rooms have no borders.
fn headers(buf: &mut Buffer, state: &State) {
    let plan = &state.derived.plan;
    if state.beside.is_none() {
        return;
    }
    let gap = gap_words(state);
    let (gap, [first, other]) = (format!("{} {}", gap.0, gap.1), branch_titles(state));
    let layers = match depth_words(state) {
        Some(words) => format!("{other} {words}"),
        None => other.clone(),
    };
    for (area, text) in [
        (plan.stream, &first),
        (plan.beside_stream, &other),
        (plan.map, &first),
        (plan.beside_map, &layers),
        (plan.difference, &gap),
    ] {
        let room = usize::from(area.width.saturating_sub(2));
        difference::header(buf, area, &show::cut(text, room), state);
    }
}

fn stream_title(state: &State) -> Line<'static> {
    let focused = has_keys(state, Room::Stream);
    if state.beside.is_some() {
        let [first, _] = branch_titles(state);
        let room = usize::from(state.derived.plan.stream.width).saturating_sub(24);
        return title(state, focused, &show::cut(&first, room), "");
    }
    match state.run.as_ref().and_then(|run| pushed(state, run)) {
        Some(words) => title(state, focused, "Stream", &format!("· {words}")),
        None => title(state, focused, "Stream", ""),
    }
}

/// What pushes a run's states, in words; `None` for the plain model.
fn pushed(state: &State, run: &Run) -> Option<String> {
    // What is in force now may have come after this text was read.
    let words = run.plan_last(&state.steering.label);
    match (run.mixed(), words.is_empty()) {
        (true, _) => Some("under more than one plan: replay makes it one".to_owned()),
        (false, true) => None,
        (false, false) => Some(format!("steered by {words}")),
    }
}

/// What the branches of a comparison are called.
fn branch_titles(state: &State) -> [String; 2] {
    let label = &state.steering.label;
    let beside = state.beside.as_ref();
    let pushed = beside.map_or(label.as_str(), |beside| beside.run.plan_last(label));
    match (state.model_names(), pushed) {
        (Some(names), _) => names.each_ref().map(|name| show::visible(name)),
        (None, "") => ["Baseline", "Steered by nothing"].map(str::to_owned),
        (None, label) => ["Baseline".to_owned(), format!("+ {label}")],
    }
}

/// Which layer of the second of two models lies beside the cursor's; `None` where each lies beside its own number.
fn depth_words(state: &State) -> Option<String> {
    let (depths, layer) = (state.depths()?, state.cursor.layer);
    let states = state.branches().map(|run| run.grid.states());
    let alike = states
        .collect::<Vec<_>>()
        .windows(2)
        .all(|two| two[0] == two[1]);
    (!alike).then(|| format!("· layer {} beside {layer}", depths.of_b(layer)))
}

fn beside_map_title(state: &State) -> Line<'static> {
    let Some(words) = depth_words(state) else {
        return map_title(state);
    };
    title(
        state,
        has_keys(state, Room::Map),
        &map_words(state).0,
        &words,
    )
}

fn beside_title(state: &State) -> Line<'static> {
    // What the branch is comes before how far it is.
    let room = usize::from(state.derived.plan.beside_stream.width).saturating_sub(6);
    let [_, name] = branch_titles(state);
    let name = show::cut(&name, room);
    let mixed = state.beside.as_ref().is_some_and(|b| b.run.mixed());
    let rest = if mixed {
        "· replay makes it one plan"
    } else {
        ""
    };
    title(state, has_keys(state, Room::Stream), &name, rest)
}

fn beside_note(state: &State) -> Line<'static> {
    match &state.beside {
        Some(beside) => branch_note(state, &beside.run),
        None => Line::default(),
    }
}

/// How far a branch of a comparison is.
fn branch_note(state: &State, run: &Run) -> Line<'static> {
    if run.masked() && state.model_names().is_some() {
        let (tokens, gaps) = (run.grid.len(), run.masks().len());
        let mask = run.model.as_ref().map_or("", |m| m.card.mask_text());
        let text = format!(" {tokens} tokens · {gaps} {mask} ");
        return Line::styled(text, state.theme.muted);
    }
    let ended = run
        .finish
        .map_or(String::new(), |f| format!(" · {}", f.label()));
    let text = format!(" {} drawn{ended} ", run.drawn());
    Line::styled(text, state.theme.muted)
}

/// What the map of differences shows, in words.
fn gap_words(state: &State) -> (String, String) {
    let spec = state.columns().spec(state.metric);
    let label = show::visible(&spec.label);
    if let Some([a, b]) = state.model_names() {
        let [a, b] = [a, b].map(|name| show::cut(&show::visible(name), 16));
        return match state.gap {
            Gap::Difference => (format!("{b} − {a}"), format!("· {label}")),
            Gap::Percent => (format!("{b} − {a}"), format!("· {label}, % of {a}")),
            Gap::Divergence => (format!("KL({a}‖{b})"), "· nats".to_owned()),
        };
    }
    match state.gap {
        Gap::Difference => ("Steered − baseline".to_owned(), format!("· {label}")),
        Gap::Percent => ("Change".to_owned(), format!("· {label}, % of the baseline")),
        Gap::Divergence => (
            "KL(baseline‖steered)".to_owned(),
            "· nats, where the texts agree".to_owned(),
        ),
    }
}

fn gap_title(state: &State) -> Line<'static> {
    let (first, rest) = gap_words(state);
    title(state, has_keys(state, Room::Map), &first, &rest)
}

fn gap_note(state: &State) -> Line<'static> {
    let text = match state.derived.diverged {
        Some(at) => format!(" texts part at token {at} "),
        None => " the texts agree ".to_owned(),
    };
    let style = match state.derived.diverged {
        Some(_) => state.theme.warn,
        None => state.theme.muted,
    };
    Line::styled(text, style)
}

fn summary_title(state: &State) -> Line<'static> {
    let spec = state.columns().spec(state.metric);
    let label = show::visible(&spec.label);
    let (first, rest) = match (&state.derived.models, state.derived.plan.mode) {
        // The numbers say so themselves, and why there is no map of differences needs the room.
        (Some(_), Mode::Folded) => (format!("{label} by depth"), ""),
        (Some(_), _) => (format!("{label} by depth"), "· mean ± std"),
        (None, _) => (format!("{label} by layer"), "· mean ± std"),
    };
    title(state, has_keys(state, Room::Cell), &first, rest)
}

/// Why there is no map of differences, where the numbers have no line for it.
fn summary_note(state: &State) -> Line<'static> {
    let why = state.why_no_difference();
    match why.filter(|_| state.derived.plan.mode == Mode::Folded) {
        Some(why) => Line::styled(format!(" {why} "), state.theme.muted),
        None => Line::default(),
    }
}

/// Which pair of prompts is compared, and under what.
fn prompts_note(state: &State) -> String {
    let pair = state.pair().map_or(String::new(), |pair| {
        format!(" pair {}/{} ·", pair.number, pair.of)
    });
    let words = state.run.as_ref().map_or("", |run| run.plan_last(""));
    let pushed = match words {
        "" => "positions are each prompt's own ".to_owned(),
        words => format!("both under {words} "),
    };
    format!("{pair} {pushed}")
}

/// The slider and how branches read, in the prompt's upper border.
fn steering_note(state: &State) -> Line<'static> {
    let theme = &state.theme;
    if state.sets.is_some() {
        // The title of the sets says what both were read under.
        return Line::default();
    }
    if let Some(beside) = state.beside.as_ref().filter(|b| b.names().is_some()) {
        let text = match beside.pairing {
            Pairing::Free => " free: each its own text, positions are each model's own ".to_owned(),
            Pairing::Locked => " locked: both read one text ".to_owned(),
            Pairing::Prompts => prompts_note(state),
        };
        return Line::styled(text, theme.muted);
    }
    let Some(part) = state.steering.slider() else {
        return Line::default();
    };
    let key = |action: Action| {
        state
            .keymap
            .hint(action, Context::Rooms)
            .unwrap_or_default()
    };
    let mut spans = vec![
        Span::styled(format!(" {} ", key(Action::Weaker)), theme.accent),
        Span::styled(super::steering::line(part.amount(), 15), theme.base),
        Span::styled(format!(" {} ", key(Action::Stronger)), theme.accent),
        Span::styled(
            format!("{:+.2} ", part.amount()).replace('-', "−"),
            theme.title,
        ),
    ];
    if let Some(beside) = &state.beside {
        let text = format!("· {} ", beside.pairing.label());
        spans.push(Span::styled(text, theme.muted));
    }
    Line::from(spans)
}

fn stream_note(state: &State) -> Line<'static> {
    let Some(run) = &state.run else {
        return Line::default();
    };
    if state.beside.is_some() {
        return branch_note(state, run);
    }
    if state.masked() {
        let gaps = state.masks().len();
        let text = format!(" {} tokens · {gaps} {} ", run.grid.len(), state.mask_text());
        return Line::styled(text, state.theme.muted);
    }
    let shown = run.prompt_tokens.min(run.grid.len());
    let text = format!(" {shown} prompt + {} drawn tokens ", run.drawn());
    Line::styled(text, state.theme.muted)
}

fn map_title(state: &State) -> Line<'static> {
    let focused = has_keys(state, Room::Map);
    let (first, rest) = map_words(state);
    title(state, focused, &first, &rest)
}

/// What the map shows, in words: metric and unit, size, range.
pub fn map_words(state: &State) -> (String, String) {
    let spec = state.columns().spec(state.metric);
    let unit = match spec.unit.label() {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    let first = format!("{}{unit}", show::visible(&spec.label));
    let Some(run) = &state.run else {
        return (first, "by layer and token".to_owned());
    };
    let log = match state.derived.ranges.scale {
        Scale::Log => " · log",
        Scale::Linear => "",
    };
    let range = format!("· {}{log}", state.map.range.label());
    let rest = match &state.beside {
        // Half the width, and the other half says the same.
        Some(_) => range,
        None => format!(
            "· {} states × {} tokens {range}",
            run.grid.states(),
            run.grid.len()
        ),
    };
    (first, rest)
}

/// How to follow again, once the cursor has left the newest token.
fn map_note(state: &State) -> Line<'static> {
    if state.run.is_none() || state.only_reads() {
        return Line::default();
    }
    let key = state.keymap.hint(Action::Follow, Context::Rooms);
    match (state.cursor.follow, &state.phase) {
        (true, Phase::Reading | Phase::Streaming) => {
            Line::styled(" ● following ", state.theme.good)
        }
        (false, Phase::Reading | Phase::Streaming | Phase::Paused) => Line::from(vec![
            Span::styled(format!(" {}", key.unwrap_or_default()), state.theme.accent),
            Span::styled(" follow ", state.theme.muted),
        ]),
        _ => Line::default(),
    }
}

fn cell_title(state: &State) -> Line<'static> {
    let focused = has_keys(state, Room::Cell);
    title(state, focused, "Cell", &cell_words(state))
}

/// Which cell is looked at, in words.
pub fn cell_words(state: &State) -> String {
    if let Some(depths) = state.depths() {
        let layer = state.cursor.layer;
        return format!(
            "· layer {layer} ‖ {} · token {}",
            depths.of_b(layer),
            state.cursor_of(Side::A).position
        );
    }
    let Some(token) = state
        .grid()
        .and_then(|g| g.tokens().get(state.cursor.position))
    else {
        return String::new();
    };
    if state.is_mask(state.cursor.position) {
        return format!(
            "· predictions at {} {} · layer {}",
            state.mask_text(),
            state.cursor.position,
            state.cursor.layer
        );
    }
    format!(
        "· layer {} · token {} {}",
        state.cursor.layer,
        state.cursor.position,
        show::cut(&show::label(&token.bytes), 16)
    )
}

fn profile_title(state: &State) -> Line<'static> {
    let spec = state.columns().spec(state.metric);
    let unit = match spec.unit.label() {
        "" => String::new(),
        unit => format!("· {unit}"),
    };
    let first = format!("{} by layer", show::visible(&spec.label));
    title(state, false, &first, &unit)
}

fn attention_title(state: &State) -> Line<'static> {
    let rest = if state.run.is_some() {
        format!("· layer {}", state.cursor.layer)
    } else {
        String::new()
    };
    title(state, false, "Attention", &rest)
}

fn prompt_title(state: &State) -> Line<'static> {
    let chat = state.settings.chat && state.model.as_ref().is_some_and(|m| m.card.chat_template);
    title(
        state,
        state.writing,
        "Prompt",
        if chat { "· as a chat turn" } else { "" },
    )
}

/// The style of a room's name where rooms are tabs.
pub fn tab_style(state: &State, room: Room) -> Style {
    tab(state, state.room == room)
}

/// The style of a tab, shown or not.
pub fn tab(state: &State, shown: bool) -> Style {
    if shown {
        state.theme.cursor
    } else {
        state.theme.muted
    }
}

//! Known | near-OOD: two sets of prompts held against each other, a file a pane.
//!
//! ```text
//! ╭ Entropy by layer · mean ± std ─────┬ Entropy × varentropy · layer 9 ────╮
//! │ profiles                           │ quadrant                           │
//! ├ AUROC by layer ────────────────────┼ What this shows ───────────────────┤
//! │ separation                         │ statement                          │
//! ```
//! The first set is drawn solid and as `o`, the second dashed (where there is no colour) and as `x`.

mod profiles;
mod quadrant;
mod separation;
mod statement;

use super::frame::{tab, title};
use super::put;
use crate::trace::Set;
use crate::tui::colour::Depth;
use crate::tui::layout::SetPane;
use crate::tui::show;
use crate::tui::state::{Phase, SetsView, State, wrap};
use crate::tui::theme::Theme;
use crate::tui::widgets::Series;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Columns of the numbers at the left of curves.
const NUMBERS: u16 = 8;

/// Paint what is inside the panes.
pub fn paint(buf: &mut Buffer, state: &State) {
    let Some(sets) = &state.sets else { return };
    let plan = &state.derived.plan;
    for pane in SetPane::ALL {
        let room = plan.sets.of(pane);
        if room.is_empty() {
            continue;
        }
        let area = plan.inner(room);
        match pane {
            SetPane::Profiles => profiles::paint(buf, area, state, sets),
            SetPane::Quadrant => quadrant::paint(buf, area, state, sets),
            SetPane::Separation => separation::paint(buf, area, state, sets),
            SetPane::Statement => statement::paint(buf, area, state, sets),
        }
    }
}

/// The title of a pane.
pub fn pane_title(state: &State, pane: SetPane) -> Line<'static> {
    let Some(sets) = &state.sets else {
        return Line::default();
    };
    let spec = state.columns().spec(state.metric);
    let label = show::visible(&spec.label);
    let (first, rest, short) = match pane {
        SetPane::Profiles => {
            // The legend has the deviation too.
            let rest = match sets.label.as_str() {
                "" => "· mean ± std".to_owned(),
                label => format!("· steered by {label}"),
            };
            let first = format!("{label}{} by layer", in_unit(spec.unit.label()));
            (first, rest, "· ± std")
        }
        SetPane::Quadrant => {
            let layer = format!("· layer {}", state.cursor.layer);
            ("Entropy × varentropy".to_owned(), layer, "")
        }
        SetPane::Separation => ("AUROC by layer".to_owned(), format!("· {label}"), ""),
        SetPane::Statement => {
            let so_far = if state.phase.is_running() {
                "· so far"
            } else {
                ""
            };
            ("What this shows".to_owned(), so_far.to_owned(), "")
        }
    };
    let width = usize::from(state.derived.plan.sets.of(pane).width);
    let room = width.saturating_sub(show::columns(&first) + 7);
    let rest = match show::columns("· mean ± std") <= room {
        true => show::cut(&rest, room),
        false => short.to_owned(),
    };
    title(state, !state.writing, &first, &rest)
}

fn in_unit(unit: &str) -> String {
    match unit {
        "" => String::new(),
        unit => format!(" ({unit})"),
    }
}

/// What is going on, for the top line.
pub fn status(state: &State, sets: &SetsView) -> Line<'static> {
    let theme = &state.theme;
    let whole = sets.samples.count() == sets.total;
    let (word, style) = match &state.phase {
        Phase::Reading | Phase::Streaming => ("▶ reading", theme.good),
        Phase::Paused => ("⏸ paused", theme.warn),
        Phase::Failed => ("✗ failed", theme.error),
        _ if whole => ("■ all prompts read", theme.muted),
        _ => ("■ stopped", theme.warn),
    };
    let width = sets.total.to_string().len();
    let count = format!("  {:>width$}/{}", sets.samples.count(), sets.total);
    Line::from(vec![
        Span::styled(word.to_owned(), style),
        Span::styled(count, theme.base),
    ])
}

/// Names of the panes in equal quarters.
pub fn tabs(buf: &mut Buffer, area: Rect, state: &State) {
    let quarter = area.width / 4;
    for (i, pane) in SetPane::ALL.into_iter().enumerate() {
        let style = tab(state, state.pane == pane);
        let text = format!(" {} ", pane.label());
        put(buf, area, i as u16 * quarter, 0, &text, style);
    }
}

/// The colour of a set.
fn style(theme: &Theme, set: Set) -> Style {
    match set {
        Set::Known => theme.bar,
        Set::Unknown => theme.null,
    }
}

/// The lines of both sets for a legend: how each is drawn, its name and its size.
fn legend(state: &State, sets: &SetsView, marks: [&str; 2], sizes: bool) -> Line<'static> {
    let theme = &state.theme;
    let spans = Set::BOTH.into_iter().flat_map(|set| {
        let at = set as usize;
        let size = match sizes {
            true => format!(" · n {}", sets.samples.of(set).len()),
            false => String::new(),
        };
        [
            Span::styled(format!("{} ", marks[at]), style(theme, set)),
            Span::styled(format!("{}{size}  ", sets.names[at]), theme.base),
        ]
    });
    Line::from_iter(spans)
}

/// Mean or bound of something, layer by layer, as a curve.
fn series(values: &[Option<f32>], style: Style, dotted: bool) -> Series<'_> {
    Series {
        values,
        style,
        dotted,
    }
}

/// Whether bands would be taken for curves: without colour only curves are drawn.
fn bands(theme: &Theme) -> bool {
    theme.depth != Depth::Mono
}

/// Say what a pane will show.
fn teach(buf: &mut Buffer, area: Rect, state: &State, text: &str) {
    let lines = wrap(text, usize::from(area.width.saturating_sub(4)));
    for (line, y) in lines.iter().zip(u16::from(area.height > 4)..) {
        put(buf, area, 2, y, line, state.theme.muted);
    }
}

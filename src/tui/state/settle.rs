//! What drawing needs beyond the state itself, worked out once before a frame: layout, wrapped text, colour ranges.

use super::{EditorRows, Gap, ModelLayers, Phase, Run, SetReadings, State, Summary};
use crate::trace::{Difference, Side, Unit};
use crate::tui::colour::{Depth, gap_step, step};
use crate::tui::layout::{Mode, Plan, Wants};
use crate::tui::widgets::{Datum, Flow, Geometry, Zoom};
use ratatui::layout::Rect;
use std::ops::Range;

/// What the colours of the map span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeMode {
    /// The 2nd to 98th percentile of all cells.
    #[default]
    Map,
    /// The same for each layer alone.
    Row,
    /// The range that the metric can take (or, where it has no bound, the range when this was chosen).
    Fixed,
}

impl RangeMode {
    /// In words, for the map's title.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Map => "range p2–p98",
            Self::Row => "range p2–p98 of each row",
            Self::Fixed => "range fixed",
        }
    }

    /// The other modes in turn.
    #[must_use]
    pub fn turned(self, on: bool) -> Self {
        match (self, on) {
            (Self::Map, true) | (Self::Fixed, false) => Self::Row,
            (Self::Row, true) | (Self::Map, false) => Self::Fixed,
            (Self::Fixed, true) | (Self::Row, false) => Self::Map,
        }
    }
}

/// How values are spread over the colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By their logarithm: ranks and perplexities span decades.
    Log,
}

/// Colour ranges of one metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranges {
    /// Of the whole map, in the metric's unit.
    pub map: (f32, f32),
    /// Of each layer, where the map is coloured row by row.
    pub rows: Vec<(f32, f32)>,
    /// How values are spread.
    pub scale: Scale,
}

impl Ranges {
    /// The colour step of a value of a layer.
    #[must_use]
    pub fn step(&self, layer: usize, value: f32) -> u8 {
        let range = self.rows.get(layer).copied().unwrap_or(self.map);
        match self.scale {
            Scale::Linear => step(value, range),
            Scale::Log => {
                let log = |v: f32| v.max(1e-6).ln();
                step(log(value), (log(range.0), log(range.1)))
            }
        }
    }
}

/// What the ranges were computed from; they stay until it changes by enough to matter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Basis {
    run: usize,
    metric: usize,
    mode: RangeMode,
    read: usize,
    done: bool,
    gap: Gap,
}

/// What drawing needs beyond the state itself.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// Where the rooms are.
    pub plan: Plan,
    /// Where the map's cells are.
    pub geometry: Geometry,
    /// The strip of final-layer values over the map; empty when there is no room.
    pub strip: Rect,
    /// Where the cells of the other branch's map are; with the same columns and layers.
    pub beside_geometry: Geometry,
    /// Where the cells of the map of differences are; the same again.
    pub gap_geometry: Geometry,
    /// The wrapped text.
    pub flow: Flow,
    /// The other branch's.
    pub beside_flow: Flow,
    /// The first line of it that is shown.
    pub beside_top: usize,
    /// The wrapped prompt.
    pub editor: EditorRows,
    /// Colour ranges.
    pub ranges: Ranges,
    /// How far the colours of differences reach, on either side of zero.
    pub gap_most: f32,
    /// Both branches of a comparison by layer, over how many positions, and what these are called.
    pub summaries: (Vec<Summary>, usize, String),
    /// The same of two models, each by its own layers.
    pub models: Option<ModelLayers>,
    /// Two sets of prompts.
    pub sets: SetReadings,
    /// The first position at which the texts of a comparison differ.
    pub diverged: Option<usize>,
    /// Mean of every layer over all tokens.
    pub means: Vec<Option<f32>>,
    /// Tokens that match the search.
    pub matches: Vec<std::ops::RangeInclusive<usize>>,
    basis: Option<Basis>,
    flow_basis: (usize, usize, usize),
    beside_basis: (usize, usize, usize),
    summary_basis: (usize, usize, usize),
    match_basis: (usize, usize, String),
    mean_basis: (usize, usize, usize),
}

impl State {
    /// Work out what drawing needs. Cheap when little has changed; call it before every frame.
    pub fn settle(&mut self) {
        self.follow_stream();
        self.settle_layout();
        self.settle_flow();
        self.settle_ranges();
        self.settle_means();
        self.settle_summaries();
        self.settle_sets();
        self.settle_matches();
        self.settle_page();
    }

    fn follow_stream(&mut self) {
        let Some(run) = &self.run else { return };
        let last = self.tokens().saturating_sub(1);
        let newest = self.branches().filter_map(Run::newest_read).max();
        self.cursor.layer = self.cursor.layer.min(run.grid.states().saturating_sub(1));
        self.cursor.position = if self.cursor.follow {
            newest.unwrap_or(last)
        } else {
            self.cursor.position.min(last)
        };
    }

    fn settle_layout(&mut self) {
        let states = self.branches().map(|run| run.grid.states()).max();
        let states = states.unwrap_or(0).max(self.states());
        // In the smallest layout the prompt has no border and two columns of `> `.
        let editor_width = self.area.width.saturating_sub(6);
        self.derived.editor = self.prompt.rows(usize::from(editor_width));
        let mut wants = Wants {
            states: u16::try_from(states).unwrap_or(u16::MAX).min(999),
            cell_height: 1,
            prompt_lines: self.derived.editor.rows.len().min(9) as u16,
            candidates: self.columns().top().min(12) as u16,
            room: self.room,
            comparing: self.beside.as_ref().map(|_| self.lower),
            one_to_one: self.why_no_difference().is_none(),
            sets: self.sets.as_ref().map(|_| self.pane),
        };
        let mut plan = Plan::new(self.area, wants);
        let comparing = wants.comparing.is_some();
        if !self.map.zoom_chosen {
            let map = if plan.map.is_empty() {
                plan.difference
            } else {
                plan.map
            };
            let rows = usize::from(plan.inner(map).height.saturating_sub(2));
            self.map.zoom = if map.is_empty() || states <= rows {
                Zoom::Cells
            } else {
                Zoom::Halves
            };
        }
        wants.cell_height = match self.map.zoom {
            // Chosen in a room that has place for more, halves leave the rooms where they are.
            Zoom::Halves if !self.map.zoom_chosen || plan.mode != Mode::Full => 0,
            _ if !comparing
                && plan.mode == Mode::Full
                && 2 * states + 14 <= usize::from(self.area.height) =>
            {
                2
            }
            _ => 1,
        };
        plan = Plan::new(self.area, wants);
        let room = plan.inner(if plan.map.is_empty() {
            plan.difference
        } else {
            plan.map
        });
        self.derived.geometry = self.geometry(room, wants.cell_height);
        self.settle_beside(&plan);
        let above = self.derived.geometry.area.y.saturating_sub(room.y);
        // A free row keeps the strip apart from the cells.
        self.derived.strip = if above >= 3 && !room.is_empty() && !comparing {
            let rows = (above - 1).min(10);
            Rect {
                y: self.derived.geometry.area.y - rows - 1,
                height: rows,
                ..self.derived.geometry.area
            }
        } else {
            Rect::default()
        };
        self.derived.plan = plan;
    }

    /// Where the map's cells lie in its room: labels at the left, token labels and the colour bar in the last two
    /// rows, the cells just above them.
    fn geometry(&mut self, room: Rect, cell_height: u16) -> Geometry {
        let labels = 4;
        if room.height < 3 || room.width <= labels {
            return Geometry::default();
        }
        let rows = room.height - 2;
        let wide = room.width - labels;
        let mono = self.depth == Depth::Mono;
        let halves = self.map.zoom == Zoom::Halves && !mono;
        let tokens = self.tokens();
        let expected = self
            .run
            .as_ref()
            .map_or(0, |r| r.prompt_tokens.saturating_add(r.max_new_tokens))
            .max(tokens)
            .max(1);
        let width = match self.map.zoom {
            Zoom::Halves => 1,
            // A short run may spread; its width is settled when it starts, so that nothing jumps.
            Zoom::Cells => (usize::from(wide) / expected).clamp(2, 4) as u16,
            Zoom::Words if wide >= 90 => 11,
            Zoom::Words => 9,
        };
        let height = cell_height.max(1);
        let columns = usize::from(wide / width);
        let fit = usize::from(rows / height) * if halves { 2 } else { 1 };
        let layers = self.visible_layers(fit);
        let used = if halves {
            (layers.len() as u16).div_ceil(2)
        } else {
            layers.len() as u16 * height
        };
        self.scroll_map(columns, tokens);
        Geometry {
            area: Rect::new(
                room.x + labels,
                room.y + rows - used,
                columns as u16 * width,
                used,
            ),
            width,
            height,
            halves,
            left: self.map.left,
            columns,
            layers,
        }
    }

    /// The positions that the map shows.
    #[must_use]
    pub fn on_screen(&self) -> Range<usize> {
        let geometry = match self.derived.geometry.columns {
            0 => &self.derived.gap_geometry,
            _ => &self.derived.geometry,
        };
        geometry.left..geometry.left + geometry.columns
    }

    /// The layers that fit, from top to bottom: the last one always, below it a window around the cursor.
    fn visible_layers(&mut self, fit: usize) -> Vec<usize> {
        let states = self.states();
        let last = states - 1;
        if states <= fit || fit < 2 {
            self.map.bottom = 0;
            return (0..states).rev().take(fit.max(1)).collect();
        }
        let window = fit - 1;
        let lowest = self.cursor.layer.min(last - 1);
        let bottom = self
            .map
            .bottom
            .min(lowest)
            .max((lowest + 1).saturating_sub(window));
        // The cursor on the pinned last layer leaves the window where it is.
        self.map.bottom = if self.cursor.layer == last {
            self.map.bottom.min(last - window)
        } else {
            bottom.min(last - window)
        };
        std::iter::once(last)
            .chain((self.map.bottom..self.map.bottom + window).rev())
            .collect()
    }

    /// Keep the cursor (and, while following, the newest token) in view, moving by half a page: a token then costs
    /// one column on the wire instead of the whole map.
    fn scroll_map(&mut self, columns: usize, tokens: usize) {
        let half = (columns / 2).max(1);
        let newest = tokens.saturating_sub(1);
        let mut left = self.map.left;
        let wanted = if self.cursor.follow {
            newest
        } else {
            self.cursor.position
        };
        if wanted >= left + columns {
            let beyond = wanted + 1 - (left + columns);
            left += beyond.div_ceil(half) * half;
        }
        if wanted < left {
            left = left.saturating_sub((left - wanted).div_ceil(half) * half);
        }
        let ended = matches!(self.phase, Phase::Done(_) | Phase::Failed);
        self.map.left = if tokens <= columns {
            0
        } else if ended && self.cursor.follow {
            // Nothing more will come: the free half of the page can show what was before.
            tokens - columns
        } else {
            left
        };
    }

    fn settle_flow(&mut self) {
        let at = Side::BOTH.map(|side| self.cursor_of(side).position);
        let derived = &mut self.derived;
        let room = derived.plan.inner(derived.plan.stream);
        let width = usize::from(room.width.saturating_sub(2));
        let run = self.run.as_ref();
        rewrap(run, width, &mut derived.flow, &mut derived.flow_basis);
        let beside_room = derived.plan.inner(derived.plan.beside_stream);
        let width = usize::from(beside_room.width.saturating_sub(2));
        let beside = self.beside.as_ref().map(|beside| &beside.run);
        let flow = &mut derived.beside_flow;
        rewrap(beside, width, flow, &mut derived.beside_basis);
        let shown = [
            (&derived.flow, room, &mut self.stream_top, at[0]),
            (
                &derived.beside_flow,
                beside_room,
                &mut derived.beside_top,
                at[1],
            ),
        ];
        for (flow, room, top, at) in shown {
            let (lines, height) = (flow.lines.len(), usize::from(room.height));
            if !self.stream_loose {
                // The token after the cursor's is what the cell speaks of; while streaming it is the newest line.
                let line = if self.cursor.follow {
                    lines.saturating_sub(1)
                } else {
                    flow.line_of(at)
                };
                if line >= *top + height {
                    *top = (line + 1).saturating_sub(height);
                }
                *top = (*top).min(line);
            }
            *top = (*top).min(lines.saturating_sub(height));
        }
    }

    fn settle_ranges(&mut self) {
        let Some(run) = &self.run else {
            self.derived.basis = None;
            self.derived.ranges = Ranges {
                map: self.natural_range().unwrap_or((0.0, 1.0)),
                ..Ranges::default()
            };
            return;
        };
        let now = Basis {
            run: run.number,
            metric: self.metric.0,
            mode: self.map.range,
            read: self.branches().map(Run::version).sum(),
            gap: self.gap,
            done: matches!(self.phase, Phase::Done(_) | Phase::Failed | Phase::Paused),
        };
        let keep = self.derived.basis.is_some_and(|then| {
            let same = Basis {
                read: now.read,
                done: now.done,
                ..then
            } == now;
            // A new range repaints every cell: while streaming only when a quarter more has been read.
            let grown = now.read > then.read + then.read.div_ceil(4);
            let ended = now.done && now.read != then.read;
            same && !grown && !ended && now.read >= then.read
        });
        if keep {
            return;
        }
        let frozen = self
            .derived
            .basis
            .filter(|then| then.run == now.run && then.metric == now.metric)
            .map(|_| self.derived.ranges.map);
        let (states, depths) = (run.grid.states(), self.depths());
        let name = self.columns().spec(self.metric).name.as_str();
        let scale = match name {
            "next_rank" | "perplexity" => Scale::Log,
            _ => Scale::Linear,
        };
        // A tied head's embedding row and the first column say the same in every run and would flatten the rest.
        let quantiles = |layers: Range<usize>, first: usize| {
            let of_each = self.branches().enumerate().filter_map(|(branch, run)| {
                let (grid, share) = (&run.grid, (0.02, 0.98));
                // Of a second model the layers that lie beside these.
                let layers = match depths.filter(|_| branch > 0 && !layers.is_empty()) {
                    Some(depths) => depths.of_b(layers.start)..depths.of_b(layers.end - 1) + 1,
                    None => layers.clone(),
                };
                grid.quantile_range(self.metric, layers, first, share)
            });
            of_each.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        };
        let whole = quantiles(1..states, 1).or_else(|| quantiles(0..states, 0));
        let whole = whole.or(self.natural_range()).unwrap_or((0.0, 1.0));
        let rows = match self.map.range {
            RangeMode::Row => (0..states)
                .map(|l| quantiles(l..l + 1, 1).unwrap_or(whole))
                .collect(),
            RangeMode::Map | RangeMode::Fixed => Vec::new(),
        };
        let map = match self.map.range {
            RangeMode::Fixed => self.natural_range().or(frozen).unwrap_or(whole),
            RangeMode::Map | RangeMode::Row => whole,
        };
        let gap_most = self.gap_most();
        self.derived.ranges = Ranges { map, rows, scale };
        self.derived.gap_most = gap_most;
        self.derived.basis = Some(now);
    }

    /// What the metric can be at all, where it has a bound: shares 0 to 1, information 0 to ln V.
    fn natural_range(&self) -> Option<(f32, f32)> {
        let models = self.branches().filter_map(|run| run.model.as_ref());
        let models = models.chain(&self.model).map(|model| model.card.vocab);
        let vocab = models.max().unwrap_or(0);
        match self.columns().metrics().get(self.metric.0)?.unit {
            Unit::Share => Some((0.0, 1.0)),
            Unit::Nats if vocab > 1 => Some((0.0, (vocab as f32).ln())),
            Unit::Count if vocab > 1 => Some((1.0, vocab as f32)),
            _ => None,
        }
    }

    fn settle_means(&mut self) {
        let Some(run) = &self.run else {
            self.derived.means.clear();
            self.derived.mean_basis = (0, 0, 0);
            return;
        };
        let now = (run.number, self.metric.0, run.version());
        let then = self.derived.mean_basis;
        let cells = now.2 * run.grid.states();
        // A long run's mean hardly moves with one more token.
        let near = cells > 20_000 && now.2 < then.2 + then.2 / 32;
        if now == then || (now.0 == then.0 && now.1 == then.1 && near) {
            return;
        }
        self.derived.means = run
            .grid
            .mean_profile(0..run.grid.len(), self.metric)
            .into_iter()
            .map(|(mean, _)| mean.map(|m| m as f32))
            .collect();
        self.derived.mean_basis = now;
    }

    /// The 98th percentile of all differences, by size: one extreme cell must not flatten the rest.
    fn gap_most(&self) -> f32 {
        let Some(difference) = self.difference() else {
            return 1.0;
        };
        let cells = difference
            .positions()
            .flat_map(|position| (0..difference.states()).map(move |layer| (layer, position)));
        let mut sizes: Vec<f32> = cells
            .filter_map(|(layer, at)| self.gap.of(&difference, layer, at, self.metric))
            .filter(|gap| gap.is_finite())
            .map(f32::abs)
            .collect();
        if sizes.is_empty() {
            return 1.0;
        }
        let at = (sizes.len() - 1) * 98 / 100;
        let (_, most, _) = sizes.select_nth_unstable_by(at, f32::total_cmp);
        // Where nearly all is zero, the few others are all there is to see.
        match *most > 0.0 {
            true => *most,
            false => sizes.iter().copied().fold(0.0, f32::max),
        }
    }

    fn settle_summaries(&mut self) {
        let Some(run) = self.run.as_ref().filter(|_| self.beside.is_some()) else {
            self.derived.summaries = Default::default();
            self.derived.models = None;
            self.derived.diverged = None;
            self.derived.summary_basis = (0, 0, 0);
            return;
        };
        let read = self.branches().map(Run::version).sum();
        let now = (run.number, self.metric.0, read);
        if now != self.derived.summary_basis {
            self.derived.models = self.model_layers();
            self.derived.summaries = match self.derived.models {
                Some(_) => Default::default(),
                None => self.summaries(),
            };
            self.derived.diverged = self.difference().and_then(|d| d.diverged());
            self.derived.summary_basis = now;
        }
    }

    /// A page never scrolls past its end.
    fn settle_page(&mut self) {
        if let Some(super::Overlay::Page(page)) = &self.overlay {
            let room = crate::tui::layout::popup_page(self.area);
            let lines = super::page_lines(self, page, usize::from(room.width)).len();
            let most = lines.saturating_sub(usize::from(room.height));
            if let Some(super::Overlay::Page(page)) = &mut self.overlay {
                page.top = page.top.min(most);
            }
        }
    }

    fn settle_matches(&mut self) {
        let (number, len) = self
            .run
            .as_ref()
            .map_or((0, 0), |r| (r.number, r.grid.len()));
        let (n, l, query) = &self.derived.match_basis;
        if (*n, *l) == (number, len) && *query == self.search {
            return;
        }
        self.derived.matches = self.matches();
        self.derived.match_basis = (number, len, self.search.clone());
    }

    /// What is known of a cell of a branch for its map.
    #[must_use]
    pub fn datum(&self, run: &Run, layer: usize, position: usize) -> Datum {
        if run.grid.cells(position).is_none() {
            return Datum::Unread;
        }
        let value = run.grid.value(layer, position, self.metric);
        value.map_or(Datum::Absent, |v| Datum::Step(self.shade(run, layer, v)))
    }

    /// What is known of a cell for the map of differences.
    #[must_use]
    pub fn gap_datum(&self, difference: &Difference<'_>, layer: usize, position: usize) -> Datum {
        let read = self
            .branches()
            .all(|run| run.grid.cells(position).is_some());
        if !read {
            return Datum::Unread;
        }
        let most = self.derived.gap_most;
        match self.gap.of(difference, layer, position, self.metric) {
            None => Datum::Absent,
            Some(gap) if self.gap.diverges() => Datum::Step(gap_step(gap, most)),
            Some(gap) => Datum::Step(step(gap, (0.0, most))),
        }
    }
}

/// Wrap the text of a run, as far as it has changed since it was wrapped as `basis` says.
fn rewrap(run: Option<&Run>, width: usize, flow: &mut Flow, basis: &mut (usize, usize, usize)) {
    let now = match run {
        Some(run) => (run.number, run.grid.len(), width),
        None => (0, 0, width),
    };
    if now == *basis {
        return;
    }
    let (number, length, old_width) = *basis;
    if (number, old_width) != (now.0, width) || now.1 < length {
        *flow = Flow::default();
    }
    if let Some(run) = run {
        let open = flow.open_from()..run.grid.len();
        flow.extend(open.map(|position| run.text_of(position)), width);
    }
    *basis = now;
}

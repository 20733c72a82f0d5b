//! Two models on one prompt: how the second is asked for, and which of its cells stand beside those of the first.
//!
//! A second model has its own layers, its own tokens and its own words; only where both are the same do cells compare one
//! to one.

use super::{Beside, Cursor, Level, Model, Overlay, Run, State};
use crate::trace::{Depths, Pairing, Record, Side, Spread, summarised};
use crate::tui::effect::{Effect, Export};
use crate::tui::widgets::Geometry;
use ratatui::layout::Rect;
use std::sync::Arc;

/// The second model, as far as the screen knows it.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// What it is asked for as: a folder, a `.gguf` file, a hub id, or `demo`.
    pub reference: Option<String>,
    /// Whether runs are comparisons with it.
    pub on: bool,
    /// What is being loaded: in words, bytes done, bytes in all.
    pub loading: Option<(String, u64, Option<u64>)>,
    /// The one that the engine has ready, until a comparison with it begins.
    pub(super) announced: Option<Model>,
    /// What was typed last, and may have been refused.
    draft: String,
    /// What was asked for before the change that the engine has still to accept.
    before: Option<(Option<String>, bool, Option<Pairing>)>,
}

/// Two models by layer, each over the summarised positions of its own text.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelLayers {
    /// Which layers lie equally deep.
    pub depths: Depths,
    /// Every layer of A, and of B.
    pub layers: [Vec<Option<Spread>>; 2],
    /// KL(A‖B) by layer, nats; empty where cells do not compare one to one.
    pub divergence: Vec<Option<Spread>>,
    /// What the positions of each are called.
    pub which: [String; 2],
}

impl Second {
    /// This one, with which runs are compared from the first on; or none.
    #[must_use]
    pub fn new(reference: Option<&str>) -> Self {
        Self {
            reference: reference.map(str::to_owned),
            on: reference.is_some(),
            ..Self::default()
        }
    }
}

impl Second {
    /// Something else is compared, whatever becomes of what was asked for before.
    pub(super) fn leave(&mut self) {
        self.on = false;
        self.before = None;
    }
}

impl Beside {
    /// What both models are called; `None` where one model stands beside itself under steering.
    #[must_use]
    pub fn names(&self) -> Option<&[String; 2]> {
        self.names.as_ref()
    }
}

impl State {
    /// What two models on the screen are called.
    #[must_use]
    pub fn model_names(&self) -> Option<&[String; 2]> {
        self.beside.as_ref()?.names()
    }

    /// Both runs of two models.
    fn both_models(&self) -> Option<[&Run; 2]> {
        let beside = self.beside.as_ref().filter(|b| b.names.is_some())?;
        Some([self.run.as_ref()?, &beside.run])
    }

    /// Which layers of two models lie equally deep.
    #[must_use]
    pub fn depths(&self) -> Option<Depths> {
        let blocks = self.both_models()?.map(|run| run.grid.states() - 1);
        Some(Depths::new(blocks[0], blocks[1]))
    }

    /// The cursor in a branch: of two models at the layer that lies as deep, and no further than its text goes. While it
    /// follows, it stands on the newest token that each has read.
    #[must_use]
    pub fn cursor_of(&self, side: Side) -> Cursor {
        let (Some(runs), Some(depths)) = (self.both_models(), self.depths()) else {
            return self.cursor;
        };
        let run = runs[side as usize];
        let last = run.grid.len().saturating_sub(1);
        let position = match self.cursor.follow {
            true => run.newest_read().unwrap_or(last),
            false => self.cursor.position.min(last),
        };
        Cursor {
            layer: match side {
                Side::A => self.cursor.layer,
                Side::B => depths.of_b(self.cursor.layer),
            },
            position,
            ..self.cursor
        }
    }

    /// The layer of the first model that lies as deep as this one of a run.
    #[must_use]
    pub fn layer_of_first(&self, run: &Run, layer: usize) -> usize {
        let blocks = |run: &Run| run.grid.states().saturating_sub(1);
        match &self.run {
            Some(first) if blocks(first) != blocks(run) => {
                Depths::new(blocks(run), blocks(first)).of_b(layer)
            }
            _ => layer,
        }
    }

    /// The colour step of a value of a branch's layer, on the scale that both share at this depth.
    #[must_use]
    pub fn shade(&self, run: &Run, layer: usize, value: f32) -> u8 {
        let row = self.layer_of_first(run, layer);
        self.derived.ranges.step(row, value)
    }

    /// Why the cells of two models do not compare one to one; `None` where they do.
    #[must_use]
    pub fn why_no_difference(&self) -> Option<&'static str> {
        let [a, b] = self.both_models()?;
        match self.beside.as_ref()?.pairing {
            Pairing::Free => Some("no differences cell by cell: each reads its own text"),
            Pairing::Locked if a.grid.states() != b.grid.states() => {
                Some("no differences cell by cell: one has more layers")
            }
            Pairing::Locked => None,
            Pairing::Prompts => {
                Some("no differences cell by cell: each branch has a prompt of its own")
            }
        }
    }

    /// Both models by layer.
    pub(super) fn model_layers(&self) -> Option<ModelLayers> {
        let (runs, depths) = (self.both_models()?, self.depths()?);
        let of_each = runs.map(|run| match &run.model {
            Some(model) => summarised([&run.grid], &model.card),
            None => Default::default(),
        });
        let layers = [0, 1].map(|side: usize| {
            let (grid, (positions, _)) = (&runs[side].grid, &of_each[side]);
            let layers = 0..grid.states();
            layers
                .map(|layer| grid.spread(layer, self.metric, positions))
                .collect()
        });
        let divergence = self.difference().map_or(Vec::new(), |difference| {
            let positions = &of_each[1].0;
            let of_layer = |layer| difference.divergence_spread(layer, positions.iter().copied());
            (0..difference.states()).map(of_layer).collect()
        });
        Some(ModelLayers {
            depths,
            layers,
            divergence,
            which: of_each.map(|(_, which)| which),
        })
    }

    /// The runs of two models as they are exported, with their tokenizers; `None` where there is no text of two.
    pub(super) fn model_export(&self) -> Option<Export> {
        let (runs, beside) = (self.both_models()?, self.beside.as_ref()?);
        let names = beside.names.as_ref()?;
        let [Some(a), Some(b)] = runs.map(|run| run.model.as_ref()) else {
            return None;
        };
        if runs[0].grid.is_empty() {
            return None;
        }
        let record = |side: usize, model: &Model| {
            let (run, first) = (runs[side], runs[0]);
            Record {
                model: Arc::clone(&model.card),
                schema: Arc::clone(&run.schema),
                sampling: first.sampling.clone(),
                sampling_changes: first.sampling_changes.clone(),
                lens: run.lens.clone(),
                steering: run.steering.description(),
                steering_changes: Vec::new(),
                comparison: None,
                max_new_tokens: if run.masked() { 0 } else { run.max_new_tokens },
                branches: vec![(names[side].clone(), run.grid.clone())],
                started: first.started,
                ended: first.ended,
            }
        };
        let tokenizers = [a, b].map(|model| Arc::clone(&model.tokenizer));
        let records = Box::new([record(0, a), record(1, b)]);
        Some(Export::Models(records, tokenizers, beside.pairing))
    }

    /// Hold the second model against the first, or ask which it is.
    pub(super) fn compare_models(&mut self) -> Vec<Effect> {
        match self.second.reference.clone() {
            Some(reference) if !self.second.on => self.hold_against(reference),
            reference => {
                let offered = reference.unwrap_or_else(|| self.second.draft.clone());
                self.overlay = Some(Overlay::OtherModel(offered));
                Vec::new()
            }
        }
    }

    /// Take what was typed as the second model.
    pub(super) fn take_other(&mut self, typed: &str) -> Vec<Effect> {
        self.overlay = None;
        let typed = typed.trim().to_owned();
        self.second.draft.clone_from(&typed);
        match typed.is_empty() {
            true => Vec::new(),
            false => self.hold_against(typed),
        }
    }

    fn hold_against(&mut self, reference: String) -> Vec<Effect> {
        self.remember_compared();
        self.second.reference = Some(reference);
        self.second.on = true;
        self.compare = Some(Pairing::Free);
        self.begin_again(Vec::new())
    }

    /// Free or locked, the other way round, of two models.
    pub(super) fn turn_models(&mut self) -> Vec<Effect> {
        self.remember_compared();
        self.compare = Some(match self.compare {
            Some(Pairing::Free) => Pairing::Locked,
            Some(Pairing::Locked | Pairing::Prompts) | None => Pairing::Free,
        });
        self.begin_again(Vec::new())
    }

    /// Keep what is compared now, until what is asked for next has begun.
    fn remember_compared(&mut self) {
        let second = &mut self.second;
        let now = (second.reference.clone(), second.on, self.compare);
        second.before.get_or_insert(now);
    }

    /// What was asked for has begun.
    pub(super) fn compared_as_asked(&mut self) {
        self.second.before = None;
        self.second.loading = None;
    }

    /// What was asked for has been refused: the next run is what it was before.
    pub(super) fn compared_as_before(&mut self) {
        self.second.announced = None;
        self.second.loading = None;
        if let Some((reference, on, compare)) = self.second.before.take() {
            self.second.reference = reference;
            self.second.on = on;
            self.compare = compare;
        }
    }

    /// A second model is being loaded.
    pub(super) fn loading_other(&mut self, what: &str, done: u64, total: Option<u64>) {
        if self.second.loading.is_none() {
            self.loading_since = self.clock.elapsed;
        }
        self.second.loading = Some((crate::tui::show::visible(what), done, total));
    }

    /// Say why there is no map of differences.
    pub(super) fn note_no_difference(&mut self, why: &str) {
        self.note(Level::Info, format!("There are {why}."));
    }
}

/// Fill a map's place with the layers of another model: all, or the last and a window around its cursor's.
pub(super) fn own_layers(geometry: &mut Geometry, room: Rect, states: usize, cursor: usize) {
    let rows = usize::from(room.height.saturating_sub(2) / geometry.height.max(1));
    let fit = (rows * if geometry.halves { 2 } else { 1 }).max(1);
    let (last, window) = (states.saturating_sub(1), fit - 1);
    geometry.layers = if states <= fit || window == 0 {
        (0..states).rev().take(fit).collect()
    } else {
        let bottom = cursor.saturating_sub(window / 2).min(last - window);
        let shown = (bottom..bottom + window).rev();
        std::iter::once(last).chain(shown).collect()
    };
    let count = geometry.layers.len() as u16;
    let used = match geometry.halves {
        true => count.div_ceil(2),
        false => count * geometry.height,
    };
    geometry.area.y = geometry.area.bottom() - used;
    geometry.area.height = used;
}

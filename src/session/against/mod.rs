//! Two models on one prompt: a base model and what was made of it, or two that have nothing in common.
//!
//! Each has its own tokenizer and goes on with its own text, one step a call; or B reads the text of A (locked), where a
//! token means the same to both.

mod beside;
mod locked;

use super::generation::{Generation, tokenize};
use super::protocol::{Event, Finish, Job, Prompt};
use crate::error::{Error, Result};
use crate::model::memory;
use crate::model::source::Progress;
use crate::model::{LoadOptions, Model, ModelCard, Sampling};
use crate::text::one_line;
use crate::trace::{Pairing, Side};
pub(super) use beside::Beside;
use locked::Locked;

/// Two models reading one prompt.
pub struct Against {
    mode: Mode,
}

enum Mode {
    Free {
        runs: Box<[Generation; 2]>,
        ended: [Option<Finish>; 2],
        /// Whose step is next.
        turn: Side,
    },
    Locked(Box<Locked>),
}

impl Against {
    /// Tokenize the prompt for both models and announce both branches. A masked model only reads.
    ///
    /// # Errors
    /// If the prompt is empty or too long for one of the models, is token ids that do not mean the same to both, the
    /// settings make no sense, the job steers (a vector fits one model), or B is to read A's text and cannot.
    pub fn start(
        a: &Model,
        b: &Model,
        job: Job,
        pairing: Pairing,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<Self> {
        if !job.steering.is_empty() {
            return Err(Error::Usage(
                "two models cannot be compared under one control vector: leave the steering out"
                    .into(),
            ));
        }
        if pairing == Pairing::Locked {
            let locked = Locked::start(a, b, job, emit)?;
            let mode = Mode::Locked(Box::new(locked));
            return Ok(Self { mode });
        }
        if let (Prompt::Ids(_), Some(why)) = (&job.prompt, different_vocabularies(a, b)) {
            return Err(Error::Usage(format!(
                "token ids do not mean the same to both models: {why}. Give the prompt as text"
            )));
        }
        let mut start = |model, side: Side| {
            Generation::start(model, job.clone(), &mut |event| emit(side, event))
                .map_err(|e| blame(e, model))
        };
        let runs = Box::new([start(a, Side::A)?, start(b, Side::B)?]);
        Ok(Self {
            mode: Mode::Free {
                runs,
                ended: [None; 2],
                turn: Side::A,
            },
        })
    }

    /// Read one chunk of the prompt or draw one token; where each has its own text, the models take turns. `Some` once both
    /// have ended: why A did, and B.
    ///
    /// # Errors
    /// If a tensor operation fails; the comparison cannot go on then.
    pub fn advance(
        &mut self,
        a: &Model,
        b: &Model,
        emit: &mut dyn FnMut(Side, Event),
    ) -> Result<Option<[Finish; 2]>> {
        let (runs, ended, turn) = match &mut self.mode {
            Mode::Locked(locked) => return locked.advance([a, b], emit),
            Mode::Free { runs, ended, turn } => (runs, ended, turn),
        };
        let side = match ended[*turn as usize] {
            None => *turn,
            Some(_) => turn.other(),
        };
        let (at, model) = (side as usize, [a, b][side as usize]);
        if ended[at].is_none()
            && let Some(why) = runs[at].advance(model, &mut |event| emit(side, event))?
        {
            ended[at] = Some(why);
            emit(side, Event::Finished(why));
        }
        *turn = side.other();
        Ok(match *ended {
            [Some(a), Some(b)] => Some([a, b]),
            _ => None,
        })
    }

    /// Allow as many more tokens to each text that is drawn; what has ended goes on then.
    pub fn extend(&mut self, more: usize) {
        match &mut self.mode {
            Mode::Locked(locked) => locked.extend(more),
            Mode::Free { runs, ended, .. } => {
                // A masked model has read its text and would read it again.
                let draws = |ended: &Option<Finish>| *ended != Some(Finish::Read);
                for (run, ended) in runs.iter_mut().zip(ended).filter(|(_, e)| draws(e)) {
                    run.extend(more);
                    *ended = None;
                }
            }
        }
    }

    /// Draw differently from the next token on.
    pub fn set_sampling(&mut self, sampling: &Sampling) {
        match &mut self.mode {
            Mode::Locked(locked) => locked.set_sampling(sampling),
            Mode::Free { runs, .. } => runs
                .iter_mut()
                .for_each(|run| run.set_sampling(sampling.clone())),
        }
    }

    /// Forget how long ago the last tokens were drawn (after a pause, which is not slowness).
    pub fn restart_clock(&mut self) {
        if let Mode::Free { runs, .. } = &mut self.mode {
            runs.iter_mut().for_each(Generation::restart_clock);
        }
    }

    /// End both branches where they are.
    pub fn stop(&mut self, emit: &mut dyn FnMut(Side, Event)) -> [Finish; 2] {
        match &mut self.mode {
            Mode::Locked(locked) => locked.stop(emit),
            Mode::Free { ended, .. } => Side::BOTH.map(|side| {
                *ended[side as usize].get_or_insert_with(|| {
                    emit(side, Event::Finished(Finish::Stopped));
                    Finish::Stopped
                })
            }),
        }
    }
}

/// What the branches of two models are called: by the models' names, told apart where these are the same.
#[must_use]
pub fn branch_names(a: &ModelCard, b: &ModelCard) -> [String; 2] {
    match a.name == b.name {
        true => [format!("{} (A)", a.name), format!("{} (B)", b.name)],
        false => [a.name.clone(), b.name.clone()],
    }
}

/// Load a second model beside one that is there, which will go on to need room for its text.
///
/// # Errors
/// As [`super::open`], or if there is not enough memory for both.
pub fn open_beside(
    reference: &str,
    options: &LoadOptions,
    first: &Model,
    progress: &mut Progress<'_>,
) -> Result<Model> {
    let mut options = options.clone();
    if first.decoder().placement().in_main_memory() {
        let plan = first.plan();
        // Its weights have been taken.
        let owed = plan.total(1024).saturating_sub(plan.weights);
        let free = options.memory.or_else(memory::available);
        options.memory = free.map(|free| free.saturating_sub(owed));
    }
    super::open(reference, &options, progress).map_err(|error| match error {
        Error::Failed { problem, remedy } => Error::Failed {
            problem: format!("the second model cannot be loaded: {problem}"),
            remedy,
        },
        other => other,
    })
}

/// Which of two models a refusal is about.
fn blame(error: Error, model: &Model) -> Error {
    match error {
        Error::Usage(problem) => Error::Usage(format!("{}: {problem}", model.card().name)),
        other => other,
    }
}

/// Why a token id of one model is not the same token of the other; `None` where all are.
fn different_vocabularies(a: &Model, b: &Model) -> Option<String> {
    let (card_a, card_b) = (a.card(), b.card());
    if card_a.vocab != card_b.vocab {
        return Some(format!(
            "{} has {} logits and {} has {}",
            card_a.name, card_a.vocab, card_b.name, card_b.vocab
        ));
    }
    let display = |model: &Model, id| one_line(&model.tokenizer().display(id));
    let differ = |id: &u32| a.tokenizer().display(*id) != b.tokenizer().display(*id);
    let id = (0..card_a.vocab as u32).find(differ)?;
    Some(format!(
        "token {id} is {} to {} and {} to {}",
        display(a, id),
        card_a.name,
        display(b, id),
        card_b.name
    ))
}

/// The token ids of the prompt, which are the same to both.
///
/// # Errors
/// If they are not, or a text of one cannot be read by the other.
fn same_text(a: &Model, b: &Model, prompt: &Prompt) -> Result<Vec<u32>> {
    let refused = |why: String| {
        let (a, b) = (&a.card().name, &b.card().name);
        Err(Error::Usage(format!(
            "{b} cannot be locked to the text of {a}: {why}. Let each go on with its own text"
        )))
    };
    if a.card().causal != b.card().causal {
        return refused(
            "one reads from left to right and the other sees both sides, so that their cells speak about different tokens"
                .into(),
        );
    }
    if let Some(why) = different_vocabularies(a, b) {
        return refused(why);
    }
    let ids_a = tokenize(a, prompt).map_err(|e| blame(e, a))?;
    let ids_b = tokenize(b, prompt).map_err(|e| blame(e, b))?;
    if ids_a != ids_b {
        let both = ids_a.iter().zip(&ids_b);
        let at = both.take_while(|(a, b)| a == b).count();
        return refused(format!(
            "they make different tokens of the prompt from position {at} on"
        ));
    }
    Ok(ids_a)
}

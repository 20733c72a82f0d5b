//! The sampling panel: one line a setting, changed by steps or by typing a number.

use crate::model::Sampling;
use crate::session::Job;

/// Whether attention is kept while a run is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionChoice {
    /// Statistics always, the rows while they stay small.
    #[default]
    Auto,
    /// No attention.
    Off,
    /// Statistics only.
    Statistics,
    /// Statistics and the probabilities themselves.
    Rows,
}

impl AttentionChoice {
    const ALL: [Self; 4] = [Self::Auto, Self::Off, Self::Statistics, Self::Rows];

    fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Statistics => "statistics",
            Self::Rows => "with rows",
        }
    }
}

/// The settings of the panel, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Softmax temperature of the sampler.
    Temperature,
    /// Only the k most probable.
    TopK,
    /// Only the smallest set with this mass.
    TopP,
    /// Only what is at least this share of the best.
    MinP,
    /// Against repetition.
    Penalty,
    /// Random seed.
    Seed,
    /// Most new tokens.
    MaxNew,
    /// Go on past end-of-text.
    IgnoreEos,
    /// The prompt as a chat turn.
    Chat,
    /// What of attention is kept.
    Attention,
}

impl Field {
    /// All fields.
    pub const ALL: [Self; 10] = [
        Self::Temperature,
        Self::TopK,
        Self::TopP,
        Self::MinP,
        Self::Penalty,
        Self::Seed,
        Self::MaxNew,
        Self::IgnoreEos,
        Self::Chat,
        Self::Attention,
    ];

    /// Its name on the screen.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::TopK => "top-k",
            Self::TopP => "top-p",
            Self::MinP => "min-p",
            Self::Penalty => "repetition penalty",
            Self::Seed => "seed",
            Self::MaxNew => "max new tokens",
            Self::IgnoreEos => "past end of text",
            Self::Chat => "as chat turn",
            Self::Attention => "attention",
        }
    }

    /// What it does, for the line under the panel.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Temperature => {
                "0 always takes the most probable token; 1 draws as the model says"
            }
            Self::TopK => "draw only among the k most probable tokens",
            Self::TopP => "draw only among the fewest tokens that hold this probability",
            Self::MinP => "drop tokens below this share of the most probable one",
            Self::Penalty => "above 1, tokens seen before become less probable",
            Self::Seed => "equal seeds draw equal texts",
            Self::MaxNew => "tokens to draw after the prompt",
            Self::IgnoreEos => "go on when the model says that the text is over",
            Self::Chat => "wrap the prompt in the model's own chat template",
            Self::Attention => "auto keeps the rows while they stay under 256 MB",
        }
    }

    /// Whether a number can be typed.
    #[must_use]
    pub fn is_number(self) -> bool {
        !matches!(self, Self::IgnoreEos | Self::Chat | Self::Attention)
    }
}

/// Everything the panel changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Most new tokens.
    pub max_new_tokens: usize,
    /// Go on past end-of-text.
    pub ignore_eos: bool,
    /// The prompt as a chat turn.
    pub chat: bool,
    /// What of attention is kept.
    pub attention: AttentionChoice,
}

impl Settings {
    /// The settings a job template starts with.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self {
            sampling: job.sampling.clone(),
            max_new_tokens: job.max_new_tokens,
            ignore_eos: job.ignore_eos,
            chat: matches!(job.prompt, crate::session::Prompt::Chat(_)),
            attention: match (job.attention, job.attention_rows) {
                (_, true) => AttentionChoice::Rows,
                (true, false) => AttentionChoice::Statistics,
                (false, false) => AttentionChoice::Auto,
            },
        }
    }

    /// The value as it is shown.
    #[must_use]
    pub fn show(&self, field: Field) -> String {
        let share = |v: Option<f64>| v.map_or("off".to_owned(), |v| format!("{v:.2}"));
        let switch = |on: bool| if on { "yes" } else { "no" }.to_owned();
        let s = &self.sampling;
        match field {
            Field::Temperature if s.temperature == 0.0 => "0 · greedy".to_owned(),
            Field::Temperature => format!("{:.2}", s.temperature),
            Field::TopK => s.top_k.map_or("off".to_owned(), |k| k.to_string()),
            Field::TopP => share(s.top_p),
            Field::MinP => share(s.min_p),
            Field::Penalty if s.repetition_penalty == 1.0 => "off".to_owned(),
            Field::Penalty => format!("{:.2}", s.repetition_penalty),
            Field::Seed => s.seed.to_string(),
            Field::MaxNew => self.max_new_tokens.to_string(),
            Field::IgnoreEos => switch(self.ignore_eos),
            Field::Chat => switch(self.chat),
            Field::Attention => self.attention.label().to_owned(),
        }
    }

    /// One step down or up.
    pub fn nudge(&mut self, field: Field, up: bool) {
        let sign = if up { 1.0 } else { -1.0 };
        let s = &mut self.sampling;
        // Steps stay on their grid: 0.1 + 0.2 must show and be 0.3.
        let step = |v: f64, by: f64, low: f64, high: f64| {
            (((v + sign * by) * 100.0).round() / 100.0).clamp(low, high)
        };
        match field {
            Field::Temperature => s.temperature = step(s.temperature, 0.1, 0.0, 5.0),
            Field::TopK => {
                let k = s.top_k.unwrap_or(0);
                let k = if up { k + 5 } else { k.saturating_sub(5) };
                s.top_k = (k > 0).then_some(k);
            }
            Field::TopP => {
                let p = step(s.top_p.unwrap_or(1.0), 0.05, 0.05, 1.0);
                s.top_p = (p < 1.0).then_some(p);
            }
            Field::MinP => {
                let p = step(s.min_p.unwrap_or(0.0), 0.01, 0.0, 1.0);
                s.min_p = (p > 0.0).then_some(p);
            }
            Field::Penalty => {
                s.repetition_penalty = step(s.repetition_penalty, 0.05, 0.5, 3.0);
            }
            Field::Seed => {
                s.seed = if up {
                    s.seed.wrapping_add(1)
                } else {
                    s.seed.wrapping_sub(1)
                };
            }
            Field::MaxNew => {
                let n = self.max_new_tokens;
                self.max_new_tokens = if up { n + 16 } else { n.saturating_sub(16) };
            }
            Field::IgnoreEos => self.ignore_eos = !self.ignore_eos,
            Field::Chat => self.chat = !self.chat,
            Field::Attention => {
                let all = AttentionChoice::ALL;
                let at = all.iter().position(|c| *c == self.attention).unwrap_or(0);
                let by = if up { 1 } else { all.len() - 1 };
                self.attention = all[(at + by) % all.len()];
            }
        }
    }

    /// Take a typed number; the problem in words when it makes no sense.
    pub fn set(&mut self, field: Field, text: &str) -> Result<(), String> {
        let text = text.trim();
        let number = |low: f64, high: f64| {
            text.parse::<f64>()
                .ok()
                .filter(|v| (low..=high).contains(v))
                .ok_or_else(|| format!("{} takes a number from {low} to {high}", field.label()))
        };
        let whole = || {
            text.parse::<u64>()
                .map_err(|_| format!("{} takes a whole number from 0", field.label()))
        };
        let s = &mut self.sampling;
        match field {
            Field::Temperature => s.temperature = number(0.0, 100.0)?,
            Field::TopK => s.top_k = Some(whole()? as usize).filter(|k| *k > 0),
            Field::TopP => s.top_p = Some(number(0.0, 1.0)?).filter(|p| *p > 0.0 && *p < 1.0),
            Field::MinP => s.min_p = Some(number(0.0, 1.0)?).filter(|p| *p > 0.0),
            Field::Penalty => s.repetition_penalty = number(0.01, 100.0)?,
            Field::Seed => s.seed = whole()?,
            Field::MaxNew => self.max_new_tokens = whole()?.min(1 << 24) as usize,
            Field::IgnoreEos | Field::Chat | Field::Attention => {}
        }
        Ok(())
    }
}

/// The open panel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panel {
    /// Index into [`Field::ALL`].
    pub row: usize,
    /// A number being typed.
    pub typed: Option<String>,
}

impl Panel {
    /// The chosen field.
    #[must_use]
    pub fn field(&self) -> Field {
        Field::ALL[self.row.min(Field::ALL.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Prompt;

    fn settings() -> Settings {
        Settings::of(&Job::new(Prompt::Text(String::new()), 64))
    }

    #[test]
    fn steps_stay_on_their_grid_and_in_their_range() {
        let mut s = settings();
        for _ in 0..3 {
            s.nudge(Field::Temperature, true);
        }
        assert_eq!(s.sampling.temperature, 0.3);
        for _ in 0..9 {
            s.nudge(Field::Temperature, false);
        }
        assert_eq!(s.sampling.temperature, 0.0);
        assert_eq!(s.show(Field::Temperature), "0 · greedy");
        s.nudge(Field::TopP, false);
        assert_eq!(s.sampling.top_p, Some(0.95));
        s.nudge(Field::TopP, true);
        assert_eq!(s.sampling.top_p, None);
        assert_eq!(s.show(Field::TopP), "off");
        s.nudge(Field::Seed, false);
        assert_eq!(s.sampling.seed, u64::MAX);
        s.nudge(Field::Attention, false);
        assert_eq!(s.attention, AttentionChoice::Rows);
    }

    #[test]
    fn typed_numbers_are_checked() {
        let mut s = settings();
        s.set(Field::Temperature, "0.75").unwrap();
        s.set(Field::TopK, "40").unwrap();
        assert_eq!((s.sampling.temperature, s.sampling.top_k), (0.75, Some(40)));
        s.set(Field::TopK, "0").unwrap();
        assert_eq!(s.sampling.top_k, None);
        for (field, text) in [
            (Field::Temperature, "-1"),
            (Field::Temperature, "NaN"),
            (Field::TopP, "1.5"),
            (Field::Seed, "x"),
            (Field::MaxNew, "-3"),
        ] {
            let before = s.clone();
            let problem = s.set(field, text).unwrap_err();
            assert!(problem.starts_with(field.label()), "{problem}");
            assert_eq!(s, before);
        }
    }
}

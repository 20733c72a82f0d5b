//! One value of a setting, from the file, the environment or a flag, and which values make sense. All problems are
//! phrased to follow the setting's name: "must be …".

use toml::de::DeValue;

/// Most candidates that a cell may keep.
const MOST_CANDIDATES: usize = 100;

/// A value before it is known what it is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A real number.
    Real(f64),
    /// True or false.
    Truth(bool),
    /// Several.
    List(Vec<Value>),
    /// From the environment: a word that may stand for any of the others, a list by commas.
    Word(String),
}

/// A TOML value; `None` for tables and dates, which no setting takes.
#[must_use]
pub fn from_toml(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            Value::Whole(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Float(number) => Value::Real(number.as_str().parse().ok()?),
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| from_toml(item.get_ref()))
                .collect::<Option<_>>()?,
        ),
        DeValue::Table(_) | DeValue::Datetime(_) => return None,
    })
}

impl Value {
    /// As it was written, for messages.
    fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Word(text) => format!("\"{}\"", crate::text::one_line(text)),
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
            Self::List(_) => "a list".into(),
        }
    }

    fn not<T>(&self, wanted: &str) -> Result<T, String> {
        Err(format!("must be {wanted}, not {}", self.shown()))
    }

    /// # Errors
    /// If it is no text.
    pub fn text(&self) -> Result<String, String> {
        match self {
            Self::Text(text) | Self::Word(text) => Ok(text.clone()),
            _ => self.not("a text in quotes"),
        }
    }

    /// # Errors
    /// If it is no number.
    pub fn real(&self) -> Result<f64, String> {
        match self {
            Self::Real(number) => Ok(*number),
            Self::Whole(number) => Ok(*number as f64),
            Self::Word(word) => word.trim().parse().or_else(|_| self.not("a number")),
            _ => self.not("a number"),
        }
    }

    /// # Errors
    /// If it is no whole number from 0 on.
    pub fn count(&self) -> Result<usize, String> {
        const WANTED: &str = "a whole number from 0 on";
        match self {
            Self::Whole(number) => usize::try_from(*number).or_else(|_| self.not(WANTED)),
            Self::Word(word) => word.trim().parse().or_else(|_| self.not(WANTED)),
            _ => self.not(WANTED),
        }
    }

    /// # Errors
    /// If it is no whole number from 0 on.
    pub fn seed(&self) -> Result<u64, String> {
        self.count().map(|seed| seed as u64)
    }

    /// # Errors
    /// If it is neither true nor false.
    pub fn truth(&self) -> Result<bool, String> {
        match self {
            Self::Truth(truth) => Ok(*truth),
            Self::Word(word) => match word.trim().to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Ok(true),
                "0" | "false" | "no" | "off" => Ok(false),
                _ => self.not("true or false"),
            },
            _ => self.not("true or false"),
        }
    }

    /// # Errors
    /// If it is no list of numbers.
    pub fn reals(&self) -> Result<Vec<f64>, String> {
        match self {
            Self::List(items) => items.iter().map(Self::real).collect(),
            Self::Word(word) => word
                .split(',')
                .map(|item| Self::Word(item.to_owned()).real())
                .collect(),
            Self::Whole(_) | Self::Real(_) => Ok(vec![self.real()?]),
            _ => self.not("a list of numbers"),
        }
    }

    /// # Errors
    /// If it is neither a text nor a list of texts.
    pub fn words(&self) -> Result<Vec<String>, String> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            Self::Text(text) => Ok(vec![text.clone()]),
            _ => self.not("a key in quotes or a list of them"),
        }
    }
}

fn check<T>(value: T, holds: bool, wanted: &str) -> Result<T, String> {
    if holds {
        Ok(value)
    } else {
        Err(format!("must be {wanted}"))
    }
}

/// # Errors
/// If it is not finite or below 0.
pub fn temperature(value: f64) -> Result<f64, String> {
    check(
        value,
        value.is_finite() && value >= 0.0,
        "a number from 0 on",
    )
}

/// # Errors
/// If it is not finite or not above 0.
pub fn above_zero(value: f64) -> Result<f64, String> {
    check(
        value,
        value.is_finite() && value > 0.0,
        "a number greater than 0",
    )
}

/// # Errors
/// If it is not in 0 < share ≤ 1.
pub fn share(value: f64) -> Result<f64, String> {
    check(
        value,
        value > 0.0 && value <= 1.0,
        "greater than 0 and at most 1",
    )
}

/// # Errors
/// If it is not in 0 ≤ share ≤ 1.
pub fn min_p(value: f64) -> Result<f64, String> {
    check(value, (0.0..=1.0).contains(&value), "between 0 and 1")
}

/// # Errors
/// If it is 0.
pub fn positive(value: usize) -> Result<usize, String> {
    check(value, value > 0, "a whole number from 1 on")
}

/// How many candidates a cell keeps.
///
/// # Errors
/// If it is beyond what a grid should hold.
pub fn top(value: usize) -> Result<usize, String> {
    check(
        value,
        value <= MOST_CANDIDATES,
        &format!("at most {MOST_CANDIDATES}"),
    )
}

/// Rényi orders: each from 0 on, infinity included, none twice, because each names a column.
///
/// # Errors
/// Otherwise.
pub fn orders(values: Vec<f64>) -> Result<Vec<f64>, String> {
    let fits = values.iter().all(|order| *order >= 0.0);
    let distinct = distinct(&values);
    check(
        values,
        fits && distinct,
        "orders from 0 on (inf is allowed), none twice",
    )
}

/// Top-k shares: each in (0, 1], none twice to a hundredth of a percent, because each names two columns.
///
/// # Errors
/// Otherwise.
pub fn shares(values: Vec<f64>) -> Result<Vec<f64>, String> {
    let fits = values.iter().all(|share| (0.0001..=1.0).contains(share));
    let percents: Vec<f64> = values
        .iter()
        .map(|share| (share * 10_000.0).round())
        .collect();
    let distinct = distinct(&percents);
    check(
        values,
        fits && distinct,
        "shares between 0.0001 and 1, none twice",
    )
}

fn distinct(values: &[f64]) -> bool {
    values
        .iter()
        .enumerate()
        .all(|(i, value)| !values[..i].contains(value))
}

//! The methods of Python's `str` and `dict` that chat templates call and Jinja for Rust does not know.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

/// Longest string a method may make.
const MAX_STRING: usize = 16 << 20;

/// `value.method(*args)`.
pub(super) fn method(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => string(text, method, args),
        (None, ValueKind::Map) => map(value, method, args),
        _ => Err(unknown(method)),
    }
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    Ok(match method {
        "upper" => Value::from(text.to_uppercase()),
        "lower" => Value::from(text.to_lowercase()),
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let strips = |c: char| chars.map_or_else(|| c.is_whitespace(), |s| s.contains(c));
            Value::from(match method {
                "strip" => text.trim_matches(strips),
                "lstrip" => text.trim_start_matches(strips),
                _ => text.trim_end_matches(strips),
            })
        }
        "startswith" | "endswith" => {
            let (what,): (&Value,) = from_args(args)?;
            let holds = |s: &str| match method {
                "startswith" => text.starts_with(s),
                _ => text.ends_with(s),
            };
            Value::from(match what.as_str() {
                Some(s) => holds(s),
                None => what.try_iter()?.any(|s| s.as_str().is_some_and(holds)),
            })
        }
        "removeprefix" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(what).unwrap_or(text))
        }
        "removesuffix" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(what).unwrap_or(text))
        }
        "replace" => {
            let (from, to, count): (&str, &str, Option<i64>) = from_args(args)?;
            Value::from(replace(text, from, to, count)?)
        }
        "split" | "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            Value::from(split(text, separator, most, method == "rsplit")?)
        }
        "splitlines" => Value::from(text.lines().map(Value::from).collect::<Vec<_>>()),
        "find" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(match text.find(what) {
                Some(at) => i64::try_from(text[..at].chars().count()).unwrap_or(i64::MAX),
                None => -1,
            })
        }
        "count" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(text.matches(what).count())
        }
        "isdigit" => Value::from(!text.is_empty() && text.chars().all(char::is_numeric)),
        _ => return Err(unknown(method)),
    })
}

fn map(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let pairs = || -> Result<Vec<(Value, Value)>, Error> {
        value
            .try_iter()?
            .map(|key| Ok((key.clone(), value.get_item(&key)?)))
            .collect()
    };
    Ok(match method {
        "keys" => Value::from(value.try_iter()?.collect::<Vec<_>>()),
        "values" => Value::from(pairs()?.into_iter().map(|(_, v)| v).collect::<Vec<_>>()),
        "items" => Value::from(
            pairs()?
                .into_iter()
                .map(|(k, v)| Value::from(vec![k, v]))
                .collect::<Vec<_>>(),
        ),
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(key)?;
            if found.is_undefined() {
                default.unwrap_or_else(|| Value::from(()))
            } else {
                found
            }
        }
        _ => return Err(unknown(method)),
    })
}

fn unknown(method: &str) -> Error {
    Error::new(
        ErrorKind::UnknownMethod,
        format!("the method {method}() is not supported"),
    )
}

fn replace(text: &str, from: &str, to: &str, count: Option<i64>) -> Result<String, Error> {
    let most = count.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let times = text.matches(from).count().min(most);
    if text.len().saturating_add(times.saturating_mul(to.len())) > MAX_STRING {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "replace() makes too long a string",
        ));
    }
    Ok(text.replacen(from, to, most))
}

/// Python's `split`: without a separator at runs of white space, else at every separator; at most `most` cuts.
fn split(
    text: &str,
    by: Option<&str>,
    most: Option<i64>,
    right: bool,
) -> Result<Vec<Value>, Error> {
    let cuts = most.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let parts = cuts.saturating_add(1);
    let mut out: Vec<&str> = match by {
        Some("") => {
            return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
        }
        Some(by) if right => text.rsplitn(parts, by).collect(),
        Some(by) => text.splitn(parts, by).collect(),
        None if right => split_white(text, cuts, |t| {
            let t = t.trim_end();
            t.char_indices()
                .rfind(|(_, c)| c.is_whitespace())
                .map(|(i, c)| (&t[i + c.len_utf8()..], &t[..i]))
                .or(Some((t, "")))
        }),
        None => split_white(text, cuts, |t| {
            let t = t.trim_start();
            t.find(char::is_whitespace)
                .map(|i| (&t[..i], &t[i..]))
                .or(Some((t, "")))
        }),
    };
    if right {
        out.reverse();
    }
    Ok(out.into_iter().map(Value::from).collect())
}

/// Words taken off by `next`, at most `cuts` of them, then what is left.
fn split_white<'a>(
    text: &'a str,
    cuts: usize,
    next: impl Fn(&'a str) -> Option<(&'a str, &'a str)>,
) -> Vec<&'a str> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if out.len() == cuts {
            out.push(rest);
            break;
        }
        let Some((word, more)) = next(rest) else {
            break;
        };
        out.push(word);
        rest = more.trim();
    }
    out
}

fn title(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .flat_map(|c| {
            let cased: Vec<char> = if inside {
                c.to_lowercase().collect()
            } else {
                c.to_uppercase().collect()
            };
            inside = c.is_alphabetic();
            cased
        })
        .collect()
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first
            .to_uppercase()
            .chain(chars.as_str().to_lowercase().chars())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str, name: &str, args: &[Value]) -> String {
        method(&Value::from(text), name, args).unwrap().to_string()
    }

    #[test]
    fn strings_behave_as_in_python() {
        let s = |s: &str| Value::from(s);
        assert_eq!(call(" \n a ", "strip", &[]), "a");
        assert_eq!(call("xxaxx", "strip", &[s("x")]), "a");
        assert_eq!(call("\n\na\n", "lstrip", &[s("\n")]), "a\n");
        assert_eq!(call("a\n ", "rstrip", &[]), "a");
        assert_eq!(call("a,b,,c", "split", &[s(",")]), "['a', 'b', '', 'c']");
        assert_eq!(
            call("a,b,c", "split", &[s(","), Value::from(1)]),
            "['a', 'b,c']"
        );
        assert_eq!(
            call("a,b,c", "rsplit", &[s(","), Value::from(1)]),
            "['a,b', 'c']"
        );
        assert_eq!(call("  a \n b c ", "split", &[]), "['a', 'b', 'c']");
        assert_eq!(
            call(" a b c ", "rsplit", &[Value::from(()), Value::from(1)]),
            "['a b', 'c']"
        );
        assert_eq!(call("</think>a", "split", &[s("</think>")]), "['', 'a']");
        assert_eq!(call("abc", "startswith", &[s("ab")]), "True");
        assert_eq!(
            call("abc", "endswith", &[Value::from(vec!["x", "bc"])]),
            "True"
        );
        assert_eq!(call("aXa", "replace", &[s("a"), s("bb")]), "bbXbb");
        assert_eq!(
            call("aXa", "replace", &[s("a"), s("b"), Value::from(1)]),
            "bXa"
        );
        assert_eq!(call("hello wORLD", "title", &[]), "Hello World");
        assert_eq!(call("hELLO", "capitalize", &[]), "Hello");
        assert_eq!(call("äöü", "find", &[s("ü")]), "2");
        assert_eq!(call("a", "find", &[s("ü")]), "-1");
    }

    #[test]
    fn maps_behave_as_in_python() {
        let map = Value::from_pairs([("a", 1)]);
        let call = |name: &str, args: &[Value]| method(&map, name, args).unwrap();
        assert_eq!(call("get", &[Value::from("a")]), Value::from(1));
        assert!(call("get", &[Value::from("b")]).is_none());
        assert_eq!(
            call("get", &[Value::from("b"), Value::from(7)]),
            Value::from(7)
        );
        assert_eq!(call("keys", &[]).to_string(), "['a']");
        assert_eq!(call("values", &[]).to_string(), "[1]");
        assert_eq!(call("items", &[]).to_string(), "[['a', 1]]");
    }

    #[test]
    fn misuse_is_an_error() {
        let text = Value::from("a".repeat(1000));
        let long = Value::from("b".repeat(100_000));
        assert!(method(&text, "replace", &[Value::from("a"), long]).is_err());
        assert!(method(&text, "split", &[Value::from("")]).is_err());
        assert!(method(&text, "format", &[]).is_err());
        assert!(method(&Value::from(1), "strip", &[]).is_err());
        assert!(method(&text, "strip", &[Value::from(1)]).is_err());
    }
}

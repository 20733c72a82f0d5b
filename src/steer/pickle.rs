//! A reader of Python's pickles that keeps data and runs nothing: calls stay what they are, a callee's name and arguments.
//!
//! candle has one too, but a few hundred bytes can make it take all memory (it copies what is looked up) or overflow the
//! stack (by nesting). Here values are shared, nesting and the number of steps are bounded. Format:
//! <https://github.com/python/cpython/blob/main/Lib/pickletools.py>; read is what `torch.save` writes.

use std::collections::HashMap;
use std::rc::Rc;

/// Steps, and values copied in lists that are shared, at most.
const MAX_STEPS: usize = 1 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(Rc<str>),
    /// `module.name`.
    Class(Rc<str>),
    Items(Rc<Items>),
}

/// What holds other values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Items {
    pub(super) kind: Kind,
    pub(super) values: Vec<Value>,
    depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A tuple or list.
    List,
    /// Keys and values in turn.
    Dict,
    /// A callee and its arguments.
    Call,
    /// Something that is stored outside: its description.
    Stored,
}

impl Value {
    fn depth(&self) -> usize {
        match self {
            Self::Items(items) => items.depth,
            _ => 0,
        }
    }

    /// The values of this kind of holder.
    pub(super) fn items(&self, kind: Kind) -> Option<&[Value]> {
        match self {
            Self::Items(items) if items.kind == kind => Some(&items.values),
            _ => None,
        }
    }

    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn class(&self) -> Option<&str> {
        match self {
            Self::Class(name) => Some(name),
            _ => None,
        }
    }
}

fn hold(kind: Kind, values: Vec<Value>) -> Result<Value, String> {
    let depth = 1 + values.iter().map(Value::depth).max().unwrap_or(0);
    if depth > MAX_DEPTH {
        return Err("is nested too deeply".into());
    }
    Ok(Value::Items(Rc::new(Items {
        kind,
        values,
        depth,
    })))
}

/// Read a pickle.
///
/// # Errors
/// A problem in words, without a full stop.
pub(super) fn read(bytes: &[u8]) -> Result<Value, String> {
    let mut machine = Machine {
        bytes,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        left: MAX_STEPS,
    };
    while !machine.step()? {}
    machine.pop()
}

struct Machine<'a> {
    bytes: &'a [u8],
    stack: Vec<Value>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// Steps and copies that are left.
    left: usize,
}

impl<'a> Machine<'a> {
    /// One instruction; `true` at the end.
    fn step(&mut self) -> Result<bool, String> {
        self.spend(1)?;
        let [code] = self.array()?;
        match code {
            0x80 => {
                self.take(1)?;
            }
            // FRAME: how long the next piece is.
            0x95 => {
                self.take(8)?;
            }
            b'.' => return Ok(true),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => {
                let [n] = self.array()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                let x = f64::from_be_bytes(self.array()?);
                self.stack.push(Value::Real(x));
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?);
                self.text(len as usize)?;
            }
            0x8c => {
                let [len] = self.array()?;
                self.text(len.into())?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack
                    .push(Value::Class(format!("{module}.{name}").into()));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(name), Some(module)) = (name.text(), module.text()) else {
                    return Err("names a class without a name".into());
                };
                self.stack
                    .push(Value::Class(format!("{module}.{name}").into()));
            }
            b'q' => {
                let [at] = self.array()?;
                self.remember(at.into())?;
            }
            b'r' => {
                let at = u32::from_le_bytes(self.array()?);
                self.remember(at)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [at] = self.array()?;
                self.recall(at.into())?;
            }
            b'j' => {
                let at = u32::from_le_bytes(self.array()?);
                self.recall(at)?;
            }
            b')' | b']' => self.stack.push(hold(Kind::List, Vec::new())?),
            b'}' => self.stack.push(hold(Kind::Dict, Vec::new())?),
            b't' | b'l' => {
                let values = self.marked()?;
                self.stack.push(hold(Kind::List, values)?);
            }
            b'd' => {
                let values = self.marked()?;
                self.stack.push(hold(Kind::Dict, values)?);
            }
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let values = self.last(count)?;
                self.stack.push(hold(Kind::List, values)?);
            }
            b'a' => {
                let values = self.last(1)?;
                self.extend(Kind::List, values)?;
            }
            b'e' => {
                let values = self.marked()?;
                self.extend(Kind::List, values)?;
            }
            b's' => {
                let values = self.last(2)?;
                self.extend(Kind::Dict, values)?;
            }
            b'u' => {
                let values = self.marked()?;
                self.extend(Kind::Dict, values)?;
            }
            b'R' | 0x81 => {
                let values = self.last(2)?;
                let dictionary = values[0].class() == Some("collections.OrderedDict");
                self.stack.push(match dictionary {
                    true => hold(Kind::Dict, Vec::new())?,
                    false => hold(Kind::Call, values)?,
                });
            }
            // BUILD gives an object its attributes, which no data is in.
            b'b' => {
                self.pop()?;
            }
            b'Q' => {
                let values = self.last(1)?;
                self.stack.push(hold(Kind::Stored, values)?);
            }
            other => {
                return Err(format!(
                    "has the instruction {other:#04x}, which is not read"
                ));
            }
        }
        Ok(false)
    }

    fn spend(&mut self, steps: usize) -> Result<(), String> {
        self.left = self
            .left
            .checked_sub(steps)
            .ok_or("takes more steps than any vector needs")?;
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(n)
            .ok_or("ends in the middle of an instruction")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "ends too early".to_owned())
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.bytes.iter().position(|b| *b == b'\n');
        let line = self.take(end.ok_or("ends within a name")?)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    fn text(&mut self, len: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    /// A little-endian two's complement number of up to eight bytes.
    fn long(&mut self) -> Result<(), String> {
        let [len] = self.array()?;
        let bytes = self.take(len.into())?;
        if bytes.len() > 8 {
            return Err("has a whole number of more than 64 bits".into());
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| "takes from nothing".into()),
            false => Err("takes more than there is".into()),
        }
    }

    fn last(&mut self, count: usize) -> Result<Vec<Value>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(from) if from >= floor => Ok(self.stack.split_off(from)),
            _ => Err("takes more than there is".into()),
        }
    }

    fn marked(&mut self) -> Result<Vec<Value>, String> {
        let from = self
            .marks
            .pop()
            .ok_or("takes back to a mark that is not there")?;
        Ok(self.stack.split_off(from))
    }

    fn remember(&mut self, at: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or("remembers nothing")?;
        self.memo.insert(at, value.clone());
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<(), String> {
        let value = self.memo.get(&at).ok_or("looks up what it never kept")?;
        self.stack.push(value.clone());
        Ok(())
    }

    /// Append to the holder on top of the stack.
    fn extend(&mut self, kind: Kind, values: Vec<Value>) -> Result<(), String> {
        let deepest = 1 + values.iter().map(Value::depth).max().unwrap_or(0);
        if deepest > MAX_DEPTH {
            return Err("is nested too deeply".into());
        }
        let Some(Value::Items(mut items)) = self.stack.pop() else {
            return Err("appends to something that holds nothing".into());
        };
        if items.kind != kind {
            return Err("appends to something of another kind".into());
        }
        // The memo holds a share of most lists, which then must be copied.
        if Rc::strong_count(&items) > 1 {
            self.spend(items.values.len())?;
        }
        let own = Rc::make_mut(&mut items);
        own.values.extend(values);
        own.depth = own.depth.max(deepest);
        self.stack.push(Value::Items(items));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_and_calls_are_kept() {
        // {'a': [1, -2, 0.5], 'b': os.system('x')}, protocol 2.
        let mut bytes = b"\x80\x02}q\0(X\x01\0\0\0a]q\x01(K\x01J\xfe\xff\xff\xffG".to_vec();
        bytes.extend(0.5f64.to_be_bytes());
        bytes.extend(b"eX\x01\0\0\0bcos\nsystem\nX\x01\0\0\0x\x85Ru.");
        let value = read(&bytes).unwrap();
        let entries = value.items(Kind::Dict).unwrap();
        assert_eq!(entries[0].text(), Some("a"));
        let list = entries[1].items(Kind::List).unwrap();
        assert_eq!(list, [Value::Int(1), Value::Int(-2), Value::Real(0.5)]);
        let call = entries[3].items(Kind::Call).unwrap();
        assert_eq!(call[0].class(), Some("os.system"));
    }

    #[test]
    fn bombs_and_rubbish_are_refused() {
        let nested = [vec![b']'; 1], b"\x85".repeat(100), b".".to_vec()].concat();
        assert!(read(&nested).unwrap_err().contains("nested"));
        // Each list holds the one before ten times: 10^20 values if they were copied.
        let mut doubling = b"]".to_vec();
        for _ in 0..20 {
            doubling.extend(b"q\0]q\x01(");
            doubling.extend(b"h\0".repeat(10));
            doubling.push(b'e');
        }
        doubling.push(b'.');
        assert!(read(&doubling).is_ok());
        let endless = b"]q\0"
            .iter()
            .copied()
            .chain(b"K\x01aq\0".repeat(40_000))
            .collect::<Vec<_>>();
        assert!(read(&endless).unwrap_err().contains("steps"));
        for bytes in [
            &b"."[..],
            b"",
            b"h\x05.",
            b"e.",
            b"X\xff\xff\xff\xff",
            b"\x8a\xff",
            b"(0",
            b"K\x01K\x02a.",
            b"\x86",
            b"(R.",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes);
        }
    }
}

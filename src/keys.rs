//! Strict reading of TOML tables: every key that a file holds is asked for by the code that reads it, or it is an
//! error that names the nearest key that was asked for. No list of known keys is kept anywhere.

use crate::error::{Error, Result};
use std::collections::BTreeSet;
use toml::{Table, Value};

/// A table being read. `context` names the table in messages ("model my.toml: layer conv1").
pub struct Keys<'t> {
    table: &'t Table,
    context: String,
    asked: BTreeSet<&'static str>,
}

impl<'t> Keys<'t> {
    /// Starts to read `table`.
    pub fn new(table: &'t Table, context: impl Into<String>) -> Self {
        Self { table, context: context.into(), asked: BTreeSet::new() }
    }

    /// The name of this table in messages.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The value of `key`, or an error that says it is missing.
    pub fn required<T: FromValue>(&mut self, key: &'static str) -> Result<T> {
        match self.optional(key)? {
            Some(value) => Ok(value),
            None => Err(Error::usage(format!("{}: the key `{key}` is missing", self.context))),
        }
    }

    /// The value of `key`, or `default` where the table does not have it.
    pub fn or<T: FromValue>(&mut self, key: &'static str, default: T) -> Result<T> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// The value of `key`, if the table has it.
    pub fn optional<T: FromValue>(&mut self, key: &'static str) -> Result<Option<T>> {
        self.asked.insert(key);
        let Some(value) = self.table.get(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::usage(format!("{}: `{key}` must be {}, not `{value}`", self.context, T::EXPECTED))),
        }
    }

    /// Ends the reading: a key that nobody asked for is an error.
    pub fn finish(self) -> Result<()> {
        match self.table.keys().find(|key| !self.asked.contains(key.as_str())) {
            None => Ok(()),
            Some(unknown) => Err(Error::usage(format!(
                "{}: unknown key `{unknown}`{}",
                self.context,
                suggestion(unknown, self.asked.iter().copied())
            ))),
        }
    }
}

/// The longest names that are compared, which takes as long as the product of their lengths: longer ones nobody mistypes.
const LONGEST_COMPARED: usize = 200;

/// "; did you mean `x`?" with the nearest of `known`, or the whole list where nothing is near.
pub fn suggestion<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.filter(|name| name.len() <= LONGEST_COMPARED).collect();
    if known.is_empty() || unknown.len() > LONGEST_COMPARED {
        return String::new();
    }
    let nearest =
        known.iter().map(|name| (strsim::jaro_winkler(unknown, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, name)) if similarity > 0.7 => format!("; did you mean `{name}`?"),
        _ => format!("; known here: {}", known.join(", ")),
    }
}

/// The one of `all` that has the name `text`; `what` they are is for the message.
///
/// # Errors
/// None has: names the nearest.
pub fn one_of<T: Copy, const N: usize>(what: &str, text: &str, all: [T; N], name: fn(T) -> &'static str) -> Result<T> {
    all.into_iter().find(|&value| name(value) == text).ok_or_else(|| {
        let hint = suggestion(text, all.into_iter().map(name));
        Error::usage(format!("there is no {what} `{text}`{hint}"))
    })
}

/// A type that a TOML value can be read as.
pub trait FromValue: Sized {
    /// What the value must be, for messages: "a whole number".
    const EXPECTED: &'static str;
    /// The value, or `None` if it is of another type or out of range.
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for usize {
    const EXPECTED: &'static str = "a whole number, not negative";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|number| usize::try_from(number).ok())
    }
}

impl FromValue for u64 {
    const EXPECTED: &'static str = "a whole number, not negative";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|number| u64::try_from(number).ok())
    }
}

impl FromValue for f64 {
    const EXPECTED: &'static str = "a finite number";
    fn from_value(value: &Value) -> Option<Self> {
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64))?;
        number.is_finite().then_some(number)
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FromValue for String {
    const EXPECTED: &'static str = "a text in quotes";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl FromValue for Table {
    const EXPECTED: &'static str = "a table";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_table().cloned()
    }
}

impl FromValue for Value {
    const EXPECTED: &'static str = "a value";
    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    const EXPECTED: &'static str = "a list of fitting values in brackets";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::from_value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize> {
        let table: Table = text.parse().expect("the test's own TOML");
        let mut keys = Keys::new(&table, "layer conv1");
        let kernel = keys.required("kernel")?;
        keys.or("stride", 1usize)?;
        keys.finish()?;
        Ok(kernel)
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let message = read("kernel = 3\nstirde = 2").unwrap_err().to_string();
        assert_eq!(message, "layer conv1: unknown key `stirde`; did you mean `stride`?");
    }

    #[test]
    fn a_wrong_type_or_sign_is_named_with_what_was_expected() {
        for (text, found) in [("kernel = \"3\"", "\"3\""), ("kernel = -3", "-3"), ("kernel = 3.5", "3.5")] {
            let message = read(text).unwrap_err().to_string();
            assert_eq!(message, format!("layer conv1: `kernel` must be a whole number, not negative, not `{found}`"));
        }
    }

    #[test]
    fn a_missing_key_is_named() {
        assert_eq!(read("").unwrap_err().to_string(), "layer conv1: the key `kernel` is missing");
        assert_eq!(read("kernel = 5").unwrap(), 5);
    }
}

//! What is said on stderr: a line for people, or one JSON object for programs that collect logs.

use crate::error::Error;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: time, level, kind, message, and the figures of its kind.
    Json,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The run as it goes.
    Info,
    /// Something went wrong that the run outlives.
    Warning,
    /// What ended the run.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Info => Style::new(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Error => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// A line, with the figures that its words are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    level: Level,
    kind: &'static str,
    message: String,
    text: Option<String>,
    fields: Map<String, Value>,
}

impl Line {
    /// A line of a kind of its own, by which programs know it.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { level: Level::Info, kind, message: message.into(), text: None, fields: Map::new() }
    }

    /// Something went wrong that the run outlives.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::new("warning", message) }
    }

    /// What ended the run.
    pub fn error(error: &Error) -> Self {
        let message = error.to_string().replace('\n', " ");
        let line = Self { level: Level::Error, ..Self::new("error", message) };
        line.with("exit_code", error.exit_code())
    }

    /// A fault of mpt itself, which ends a thread.
    pub fn panic(message: &str) -> Self {
        Self { level: Level::Error, ..Self::new("panic", message.replace('\n', " ")) }
    }

    /// Adds a figure, for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(key.to_owned(), value.into());
        self
    }

    /// What people read instead of the message.
    #[must_use]
    pub fn shown_as(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// The line as people read it, coloured where its level has a colour.
    pub fn text(&self, coloured: bool) -> String {
        let text = self.text.as_ref().unwrap_or(&self.message);
        let style = if coloured { self.level.style() } else { Style::new() };
        match self.level {
            // The name of the program is what people look for above what else a terminal shows.
            Level::Error => format!("{style}mpt:{style:#} {text}"),
            Level::Info | Level::Warning => format!("{style}{text}{style:#}"),
        }
    }

    /// The line as an object, said at a time.
    pub fn json(&self, time: SystemTime) -> Value {
        let mut object = json!({
            "time": humantime::format_rfc3339_millis(time).to_string(),
            "level": self.level.name(), "kind": self.kind, "message": self.message,
        });
        for (key, value) in &self.fields {
            object[key] = value.clone();
        }
        object
    }
}

impl From<&str> for Line {
    fn from(message: &str) -> Self {
        Self::new("note", message)
    }
}

impl From<&String> for Line {
    fn from(message: &String) -> Self {
        Self::new("note", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_is_words_for_people_and_an_object_for_programs() {
        let line = Line::new("epoch", "epoch 1/2: loss 0.5").with("epoch", 1).with("loss", 0.5);
        assert_eq!(line.text(true), "epoch 1/2: loss 0.5");
        let json = line.json(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)).to_string();
        let expected = "{\"time\":\"1970-01-01T00:00:01.500Z\",\"level\":\"info\",\"kind\":\"epoch\",\
                        \"message\":\"epoch 1/2: loss 0.5\",\"epoch\":1,\"loss\":0.5}";
        assert_eq!(json, expected);
        assert_eq!(line.shown_as("other words").text(false), "other words");
    }

    #[test]
    fn what_is_no_number_is_null() {
        let line = Line::new("step", "").with("loss", f64::NAN);
        assert_eq!(line.json(SystemTime::UNIX_EPOCH)["loss"], Value::Null);
    }

    #[test]
    fn an_error_is_one_line_with_its_exit_code() {
        let line = Line::error(&Error::usage("no\nway"));
        assert_eq!(line.text(false), "mpt: no way");
        assert_eq!(line.text(true), "\u{1b}[1m\u{1b}[31mmpt:\u{1b}[0m no way");
        let json = line.json(SystemTime::UNIX_EPOCH);
        let shown = (&json["level"], &json["kind"], &json["message"], &json["exit_code"]);
        assert_eq!(shown, (&json!("error"), &json!("error"), &json!("no way"), &json!(2)));
    }

    #[test]
    fn only_what_went_wrong_has_a_colour() {
        assert_eq!(Line::warning("slow").text(true), "\u{1b}[33mslow\u{1b}[0m");
        assert_eq!(Line::warning("slow").text(false), "slow");
        assert_eq!(Line::from("fine").text(true), "fine");
    }
}

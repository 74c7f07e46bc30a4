//! The epochs of a run, read back from its record.

use super::run_log::METRICS;
use crate::error::{Error, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A figure that the record has of every epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name, as the d2l chapter has it.
    pub name: &'static str,
    key: &'static str,
    least_is_best: bool,
}

/// What the d2l chapter draws of a run.
pub const FIGURES: [Figure; 3] = [
    Figure { name: "train loss", key: "train_loss", least_is_best: true },
    Figure { name: "train acc", key: "train_accuracy", least_is_best: false },
    Figure { name: "test acc", key: "test_accuracy", least_is_best: false },
];

/// An epoch of the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Its number, from 1.
    pub number: u64,
    /// Its [`FIGURES`]; `None` where there was no evaluation, or what came out is no number.
    pub values: [Option<f64>; FIGURES.len()],
}

/// The epochs of the run in a folder.
///
/// # Errors
/// The folder holds no run, or one whose record cannot be read, is damaged or tells of no epoch yet.
pub fn of_run(run: &Path) -> Result<Vec<Epoch>> {
    let mut epochs = Vec::new();
    each_line(&record_of(run)?, |line| add(&mut epochs, line))?;
    if epochs.is_empty() {
        let shown = run.display();
        return Err(Error::usage(format!("the run {shown} has not come to the end of an epoch yet")));
    }
    Ok(epochs)
}

/// The record of the run in a folder.
///
/// # Errors
/// The folder holds no run.
pub fn record_of(run: &Path) -> Result<PathBuf> {
    let (shown, path) = (run.display(), run.join(METRICS));
    if !run.is_dir() {
        return Err(Error::usage(format!("{shown} is no folder; name the folder of a run, like runs/quick-quick/001")));
    }
    if !path.exists() {
        return Err(Error::usage(format!("{shown} is not the folder of a run: {METRICS} is not in it")));
    }
    Ok(path)
}

/// Shows each line of a record to `take`, which gives `None` for one that is not what it should be.
///
/// # Errors
/// The record cannot be read, or a line of it is damaged: names both.
pub fn each_line(path: &Path, take: impl FnMut(&Value) -> Option<()>) -> Result<()> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| Error::failed(format!("{shown} cannot be read: {error}")))?;
    parse(&text, take).map_err(|line| Error::failed(format!("{shown} is damaged: line {line} is no line of a record")))
}

/// Shows each line to `take`; gives the number of a line that is damaged. The last line may be cut short: of a run that
/// goes on, or that a crash has ended.
fn parse(text: &str, mut take: impl FnMut(&Value) -> Option<()>) -> std::result::Result<(), usize> {
    let mut lines = (1..).zip(text.split_inclusive('\n')).peekable();
    while let Some((number, line)) = lines.next() {
        match serde_json::from_str::<Value>(line) {
            Ok(line) => take(&line).ok_or(number)?,
            Err(_) if lines.peek().is_none() && !line.ends_with('\n') => {}
            Err(_) => return Err(number),
        }
    }
    Ok(())
}

fn add(epochs: &mut Vec<Epoch>, line: &Value) -> Option<()> {
    if line["kind"] == "epoch" {
        epochs.push(of_line(line)?);
    }
    Some(())
}

/// The epoch that a line of a record tells of, if it does.
pub fn of_line(line: &Value) -> Option<Epoch> {
    (line["kind"] == "epoch").then_some(())?;
    Some(Epoch { number: line["epoch"].as_u64()?, values: FIGURES.map(|figure| line[figure.key].as_f64()) })
}

/// The best of a figure and the epoch that had it first, if any epoch had the figure.
pub fn best(epochs: &[Epoch], figure: usize) -> Option<(u64, f64)> {
    let better = |value: f64, than: f64| if FIGURES[figure].least_is_best { value < than } else { value > than };
    let values = epochs.iter().filter_map(|epoch| Some((epoch.number, epoch.values[figure]?)));
    values.reduce(|best, next| if better(next.1, best.1) { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "{\"kind\":\"step\",\"epoch\":1,\"train_loss\":9.0}\n\
        {\"kind\":\"epoch\",\"epoch\":1,\"train_loss\":1.0,\"train_accuracy\":0.2,\"test_accuracy\":0.3}\n\
        {\"kind\":\"epoch\",\"epoch\":2,\"train_loss\":2.0,\"train_accuracy\":0.6,\"test_accuracy\":null}\n\
        {\"kind\":\"epoch\",\"epoch\":3,\"train_loss\":null,\"train_accuracy\":0.6,\"test_accuracy\":0.1}\n";

    fn epochs(text: &str) -> std::result::Result<Vec<Epoch>, usize> {
        let mut epochs = Vec::new();
        parse(text, |line| add(&mut epochs, line)).map(|()| epochs)
    }

    #[test]
    fn every_epoch_is_read_and_nothing_else() {
        let found = epochs(RECORD).unwrap();
        let epoch = |number, values| Epoch { number, values };
        let expected = [
            epoch(1, [Some(1.0), Some(0.2), Some(0.3)]),
            epoch(2, [Some(2.0), Some(0.6), None]),
            epoch(3, [None, Some(0.6), Some(0.1)]),
        ];
        assert_eq!(found, expected);
        assert_eq!(epochs(""), Ok(Vec::new()));
    }

    #[test]
    fn the_least_loss_and_the_most_accuracy_are_best_and_the_first_of_equals() {
        let read = epochs(RECORD).unwrap();
        let found: Vec<_> = (0..FIGURES.len()).map(|figure| best(&read, figure)).collect();
        assert_eq!(found, [Some((1, 1.0)), Some((2, 0.6)), Some((1, 0.3))]);
        assert_eq!(best(&read[1..2], 2), None);
    }

    #[test]
    fn only_the_last_line_may_be_cut_short() {
        let expected = epochs(RECORD).unwrap();
        for rest in ["{\"ki", "{\"kind\":\"epoch\",\"epoch\":4", "{\"kind\":\"step\"}"] {
            assert_eq!(epochs(&format!("{RECORD}{rest}")).unwrap(), expected, "{rest}");
            assert_eq!(epochs(&format!("{RECORD}{rest}\n{RECORD}")).is_ok(), rest.ends_with('}'), "{rest}");
        }
        assert_eq!(epochs(&format!("{RECORD}garbage\n")), Err(5));
        assert_eq!(epochs("{\"kind\":\"epoch\"}\n"), Err(1));
    }
}

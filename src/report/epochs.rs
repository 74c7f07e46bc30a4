//! The epochs of a run, read back from its record.

use super::run_log::METRICS;
use crate::error::{Error, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;

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
    let shown = run.display();
    let path = run.join(METRICS);
    if !run.is_dir() {
        return Err(Error::usage(format!("{shown} is no folder; name the folder of a run, like runs/quick-quick/001")));
    }
    if !path.exists() {
        return Err(Error::usage(format!("{shown} is not the folder of a run: {METRICS} is not in it")));
    }
    let epochs = of_record(&path)?;
    if epochs.is_empty() {
        return Err(Error::usage(format!("the run {shown} has not come to the end of an epoch yet")));
    }
    Ok(epochs)
}

/// The epochs of a record.
///
/// # Errors
/// The record cannot be read, or a line of it is damaged: names both.
pub fn of_record(path: &Path) -> Result<Vec<Epoch>> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| Error::failed(format!("{shown} cannot be read: {error}")))?;
    parse(&text).map_err(|line| Error::failed(format!("{shown} is damaged: line {line} is no line of a record")))
}

/// The epochs in the lines of a record, or the number of a line that is damaged. The last line may be cut short: of a
/// run that goes on, or that a crash has ended.
fn parse(text: &str) -> std::result::Result<Vec<Epoch>, usize> {
    let mut epochs = Vec::new();
    let mut lines = (1..).zip(text.split_inclusive('\n')).peekable();
    while let Some((number, line)) = lines.next() {
        match serde_json::from_str::<Value>(line) {
            Ok(line) if line["kind"] == "epoch" => epochs.push(epoch(&line).ok_or(number)?),
            Ok(_) => {}
            Err(_) if lines.peek().is_none() && !line.ends_with('\n') => {}
            Err(_) => return Err(number),
        }
    }
    Ok(epochs)
}

fn epoch(line: &Value) -> Option<Epoch> {
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

    #[test]
    fn every_epoch_is_read_and_nothing_else() {
        let epochs = parse(RECORD).unwrap();
        let epoch = |number, values| Epoch { number, values };
        let expected = [
            epoch(1, [Some(1.0), Some(0.2), Some(0.3)]),
            epoch(2, [Some(2.0), Some(0.6), None]),
            epoch(3, [None, Some(0.6), Some(0.1)]),
        ];
        assert_eq!(epochs, expected);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn the_least_loss_and_the_most_accuracy_are_best_and_the_first_of_equals() {
        let epochs = parse(RECORD).unwrap();
        let found: Vec<_> = (0..FIGURES.len()).map(|figure| best(&epochs, figure)).collect();
        assert_eq!(found, [Some((1, 1.0)), Some((2, 0.6)), Some((1, 0.3))]);
        assert_eq!(best(&epochs[1..2], 2), None);
    }

    #[test]
    fn only_the_last_line_may_be_cut_short() {
        let expected = parse(RECORD).unwrap();
        for rest in ["{\"ki", "{\"kind\":\"epoch\",\"epoch\":4", "{\"kind\":\"step\"}"] {
            assert_eq!(parse(&format!("{RECORD}{rest}")).unwrap(), expected, "{rest}");
            assert_eq!(parse(&format!("{RECORD}{rest}\n{RECORD}")).is_ok(), rest.ends_with('}'), "{rest}");
        }
        assert_eq!(parse(&format!("{RECORD}garbage\n")), Err(5));
        assert_eq!(parse("{\"kind\":\"epoch\"}\n"), Err(1));
    }
}

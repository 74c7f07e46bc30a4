//! The curves of a run, as the d2l chapter draws them: train loss, train accuracy and test accuracy by epoch.

use super::plot::{Curve, Plot};
use crate::error::{Error, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What is drawn: a key of the record's epochs, and its name in the picture.
const CURVES: [(&str, &str); 3] =
    [("train_loss", "train loss"), ("train_accuracy", "train acc"), ("test_accuracy", "test acc")];

/// Draws the epochs of a record, the lines of a `metrics.jsonl`, into an SVG file. What stands in the file is replaced
/// when the new picture is whole.
///
/// # Errors
/// The record cannot be read, or the picture cannot be written.
pub fn draw(record: &Path, picture: &Path, title: &str) -> Result<()> {
    let fault = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Error::failed(format!("{path}: {error}"))
    };
    let lines = fs::read_to_string(record).map_err(fault(record))?;
    let svg = plot(&lines, title).svg()?;
    let unfinished = picture.with_extension("svg.part");
    let written = fs::write(&unfinished, svg).and_then(|()| fs::rename(&unfinished, picture));
    if written.is_err() {
        // What a full disk could not take should not go on filling it.
        let _ = fs::remove_file(&unfinished);
    }
    written.map_err(fault(picture))
}

fn plot(lines: &str, title: &str) -> Plot {
    let epochs: Vec<Value> = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["kind"] == "epoch")
        .collect();
    let curves = CURVES.into_iter().map(|(key, name)| {
        let point = |epoch: &Value| Some((epoch["epoch"].as_f64()?, epoch[key].as_f64()?));
        Curve { name: name.into(), points: epochs.iter().filter_map(point).collect(), marked: true }
    });
    Plot { title: title.into(), across: "epoch".into(), up: String::new(), curves: curves.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_of_a_record_is_a_point_of_each_curve() {
        let lines = "{\"kind\":\"step\",\"epoch\":1,\"loss\":9.0}\n\
            {\"kind\":\"epoch\",\"epoch\":1,\"train_loss\":2.0,\"train_accuracy\":0.2,\"test_accuracy\":0.3}\n\
            {\"kind\":\"epoch\",\"epoch\":2,\"train_loss\":1.0,\"train_accuracy\":0.6,\"test_accuracy\":null}\n{\"ki";
        let points: Vec<_> = plot(lines, "run").curves.into_iter().map(|curve| (curve.name, curve.points)).collect();
        assert_eq!(
            points,
            [
                ("train loss".to_owned(), vec![(1.0, 2.0), (2.0, 1.0)]),
                ("train acc".to_owned(), vec![(1.0, 0.2), (2.0, 0.6)]),
                ("test acc".to_owned(), vec![(1.0, 0.3)]),
            ]
        );
    }
}

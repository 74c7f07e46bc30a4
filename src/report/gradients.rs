//! The gradient of each layer over a run, read back from its record: where it vanishes, as under sigmoid, or explodes.

use super::epochs;
use super::plot::{Curve, Plot};
use super::table::{beside, table, text};
use crate::error::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Points of a curve; each is the mean of steps that follow one another.
const MOST_POINTS: usize = 60;
/// Epochs that a table shows, the first and the last among them.
const MOST_COLUMNS: usize = 5;

/// What a record tells of the gradients of a step.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    step: u64,
    epoch: u64,
    /// The 2-norm of each layer's gradient; `None` where it is no number.
    norms: Vec<Option<f64>>,
}

/// The gradients of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// What the run is called.
    name: String,
    /// The layers with weights, in the model's order.
    layers: Vec<String>,
    steps: Vec<Step>,
}

impl Gradients {
    /// The gradients of the run in a folder.
    ///
    /// # Errors
    /// The folder holds no run, or its record cannot be read or tells of no gradients.
    pub fn of_run(run: &Path) -> Result<Self> {
        let mut found = Self { name: run.display().to_string(), layers: Vec::new(), steps: Vec::new() };
        epochs::each_line(&epochs::record_of(run)?, |line| found.add(line))?;
        if found.layers.is_empty() {
            return Err(Error::usage(format!("the record of the run {} tells of no gradients", run.display())));
        }
        Ok(found)
    }

    fn add(&mut self, line: &Value) -> Option<()> {
        if line["kind"] != "step" {
            return Some(());
        }
        let Some(norms) = line["layer_gradient_norms"].as_object().filter(|norms| !norms.is_empty()) else {
            return Some(());
        };
        if self.layers.is_empty() {
            self.layers = norms.keys().cloned().collect();
        }
        let norms = self.layers.iter().map(|layer| norms.get(layer)?.as_f64()).collect();
        self.steps.push(Step { step: line["step"].as_u64()?, epoch: line["epoch"].as_u64()?, norms });
        Some(())
    }

    /// The mean over steps of a layer's norms.
    fn mean(&self, layer: usize, steps: &[Step]) -> Option<f64> {
        let norms: Vec<f64> = steps.iter().filter_map(|step| step.norms[layer]).collect();
        (!norms.is_empty()).then(|| norms.iter().sum::<f64>() / norms.len() as f64)
    }

    /// The steps of each epoch.
    fn epochs(&self) -> impl Iterator<Item = &[Step]> {
        self.steps.chunk_by(|step, next| step.epoch == next.epoch)
    }

    /// A curve for each layer: the mean of its norms over steps that follow one another.
    fn curves(&self) -> Vec<Curve> {
        let parts: Vec<&[Step]> = self.steps.chunks(self.steps.len().div_ceil(MOST_POINTS).max(1)).collect();
        let middle = |part: &[Step]| (part[0].step + part[part.len() - 1].step) as f64 / 2.0;
        let curve = |(layer, name): (usize, &String)| {
            let points = parts.iter().filter_map(|part| Some((middle(part), self.mean(layer, part)?)));
            Curve { name: name.clone(), points: points.collect(), marked: false }
        };
        self.layers.iter().enumerate().map(curve).collect()
    }

    fn lines(&self) -> Vec<String> {
        let epochs: Vec<&[Step]> = self.epochs().collect();
        let shown = chosen(epochs.len());
        let headings: Vec<String> = shown.iter().map(|&epoch| format!("epoch {}", epochs[epoch][0].epoch)).collect();
        let headings: Vec<&str> = std::iter::once("layer").chain(headings.iter().map(String::as_str)).collect();
        let mut rows = table(&headings, &(1..headings.len()).collect::<Vec<_>>());
        for (layer, name) in self.layers.iter().enumerate() {
            let means = shown.iter().map(|&epoch| self.mean(layer, epochs[epoch]));
            let cells = means.map(|mean| mean.map_or("-".to_owned(), |mean| format!("{mean:.1e}")));
            rows.add_row(std::iter::once(name.clone()).chain(cells));
        }
        std::iter::once(self.name.clone()).chain(text(&rows).lines().map(str::to_owned)).collect()
    }
}

/// Which of so many epochs a table shows.
fn chosen(epochs: usize) -> Vec<usize> {
    let columns = epochs.min(MOST_COLUMNS);
    (0..columns).map(|column| column * (epochs - 1) / (columns - 1).max(1)).collect()
}

/// Tables of the runs beside each other: a row a layer, the mean over an epoch a column.
pub fn tables(runs: &[Gradients]) -> String {
    beside(&runs.iter().map(Gradients::lines).collect::<Vec<_>>())
}

/// A plot a run, of the same span, so that what lies lower is smaller.
pub fn plots(runs: &[Gradients]) -> Vec<Plot> {
    let curves: Vec<Vec<Curve>> = runs.iter().map(Gradients::curves).collect();
    let norms = || curves.iter().flatten().flat_map(|curve| &curve.points).map(|point| point.1);
    let positive = || norms().filter(|&norm| norm > 0.0 && norm.is_finite());
    let (least, most) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
    // A little room at both ends; nothing to span where no norm is positive.
    let span = (most > 0.0).then_some((least / 1.5, (most * 1.5).min(f64::MAX)));
    let plot = |(run, curves): (&Gradients, Vec<Curve>)| Plot {
        title: run.name.clone(),
        across: "step".into(),
        up: "gradient norm".into(),
        curves,
        logarithmic: true,
        ordered: true,
        span,
    };
    runs.iter().zip(curves.clone()).map(plot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(lines: &[Value]) -> Gradients {
        let mut gradients = Gradients { name: "run".into(), layers: Vec::new(), steps: Vec::new() };
        lines.iter().for_each(|line| gradients.add(line).unwrap());
        gradients
    }

    fn step(step: u64, epoch: u64, conv: Value, fc: f64) -> Value {
        json!({ "kind": "step", "step": step, "epoch": epoch, "layer_gradient_norms": { "conv1": conv, "fc": fc } })
    }

    #[test]
    fn a_table_has_the_mean_over_each_epoch_of_what_are_numbers() {
        let run = read(&[
            step(1, 1, json!(0.01), 1.0),
            json!({ "kind": "epoch", "epoch": 1 }),
            step(2, 2, json!(0.02), 2.0),
            step(3, 2, Value::Null, 4.0),
        ]);
        let table = tables(&[run]);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected: [&[&str]; 4] = [
            &["run"],
            &["layer", "epoch", "1", "epoch", "2"],
            &["conv1", "1.0e-2", "2.0e-2"],
            &["fc", "1.0e0", "3.0e0"],
        ];
        assert_eq!(rows, expected, "{table}");
    }

    #[test]
    fn of_many_epochs_the_first_the_last_and_some_between_are_shown() {
        assert_eq!(chosen(1), [0]);
        assert_eq!(chosen(3), [0, 1, 2]);
        assert_eq!(chosen(10), [0, 2, 4, 6, 9]);
    }

    #[test]
    fn runs_are_drawn_over_one_span_with_points_that_stand_for_some_steps() {
        let steps = |scale: f64| -> Vec<Value> { (1..=120).map(|at| step(at, 1, json!(scale), 10.0)).collect() };
        let plots = plots(&[read(&steps(1e-6)), read(&steps(1e-2))]);
        assert_eq!(plots[0].span, plots[1].span);
        let (least, most) = plots[0].span.unwrap();
        assert!(least < 1e-6 && least > 1e-7 && most > 10.0 && most < 100.0, "{least} {most}");
        assert_eq!(plots[1].curves[0].points.len(), 60);
        assert_eq!(plots[1].curves[0].points[..2], [(1.5, 1e-2), (3.5, 1e-2)]);
    }
}

//! The curves of runs as pictures: train loss, train accuracy and test accuracy by epoch.

use super::epochs::{Epoch, FIGURES};
use super::plot::{Curve, Plot};
use crate::error::{Error, Result};
use crate::file;
use std::path::Path;

/// A run and its epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What the legend calls it.
    pub name: String,
    /// What it was, for tables.
    pub about: String,
    /// Its epochs.
    pub epochs: Vec<Epoch>,
}

/// Draws a run into an SVG file. What stands in the file is replaced when the new picture is whole.
///
/// # Errors
/// The picture cannot be written.
pub fn draw(run: &Run, picture: &Path) -> Result<()> {
    let svg = alone(run).svg()?;
    let unfinished = picture.with_extension("svg.part");
    let written = file::replace(picture, &unfinished, svg.as_bytes());
    written.map_err(|error| Error::failed(format!("{}: {error}", picture.display())))
}

/// One run as the d2l chapter draws it: all figures in one plot.
pub fn alone(run: &Run) -> Plot {
    let curves = (0..FIGURES.len()).map(|figure| curve(run, figure, FIGURES[figure].name));
    Plot { title: run.name.clone(), across: "epoch".into(), curves: curves.collect(), ..Plot::default() }
}

/// Several runs: a plot a figure, and in it a curve a run, so that runs of unlike losses and lengths can be compared.
pub fn compared(runs: &[Run]) -> Vec<Plot> {
    let plot = |figure: usize| {
        let curves = runs.iter().map(|run| curve(run, figure, &run.name)).collect();
        Plot { title: FIGURES[figure].name.into(), across: "epoch".into(), curves, ..Plot::default() }
    };
    (0..FIGURES.len()).map(plot).collect()
}

fn curve(run: &Run, figure: usize, name: &str) -> Curve {
    let points = run.epochs.iter().filter_map(|epoch| Some((epoch.number as f64, epoch.values[figure]?)));
    Curve { name: name.into(), points: points.collect(), marked: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, values: &[[Option<f64>; 3]]) -> Run {
        let epochs = (1..).zip(values).map(|(number, &values)| Epoch { number, values });
        Run { name: name.into(), about: String::new(), epochs: epochs.collect() }
    }

    /// The name and points of each curve.
    fn drawn(plot: &Plot) -> Vec<(&str, &[(f64, f64)])> {
        plot.curves.iter().map(|curve| (curve.name.as_str(), curve.points.as_slice())).collect()
    }

    #[test]
    fn every_epoch_of_a_run_is_a_point_of_each_curve() {
        let plot = alone(&run("run", &[[Some(2.0), Some(0.2), Some(0.3)], [Some(1.0), Some(0.6), None]]));
        let expected: [(&str, &[(f64, f64)]); 3] = [
            ("train loss", &[(1.0, 2.0), (2.0, 1.0)]),
            ("train acc", &[(1.0, 0.2), (2.0, 0.6)]),
            ("test acc", &[(1.0, 0.3)]),
        ];
        assert_eq!(drawn(&plot), expected);
    }

    #[test]
    fn several_runs_share_a_plot_for_each_figure() {
        let values = [Some(2.0), Some(0.2), Some(0.3)];
        let plots = compared(&[run("short", &[values]), run("long", &[values, [Some(1.0), Some(0.4), Some(0.5)]])]);
        let titles: Vec<&str> = plots.iter().map(|plot| plot.title.as_str()).collect();
        assert_eq!(titles, ["train loss", "train acc", "test acc"]);
        let expected: [(&str, &[(f64, f64)]); 2] = [("short", &[(1.0, 0.3)]), ("long", &[(1.0, 0.3), (2.0, 0.5)])];
        assert_eq!(drawn(&plots[2]), expected);
    }
}

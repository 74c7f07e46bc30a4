//! A device on the page: its rate, how that went, and where its time goes.

use super::{Snapshot, escaped, hue, number};
use crate::engine::phases::Phase;
use crate::plan::Plan;
use std::fmt::Write;

/// The picture of a rate over time, in units of its own: it is stretched to the width that there is.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 36.0;
/// Phases below this share of the time are not named.
const WORTH_NAMING: f64 = 0.0005;

/// A device.
pub struct Panel {
    rank: usize,
    name: String,
    place: String,
    flops_per_example: f64,
}

impl Panel {
    /// The device of a rank.
    pub fn new(plan: &Plan, rank: usize, name: &str) -> Self {
        let (data_rank, model_rank) = (plan.mesh.data_rank(rank), plan.mesh.model_rank(rank));
        let place = format!("rank {rank}: data {data_rank}, model {model_rank}");
        Self { rank, name: name.to_owned(), place, flops_per_example: plan.training_flops(model_rank) as f64 }
    }

    /// Its part of the page.
    pub fn html(&self, now: &Snapshot) -> String {
        let rate = now.averages.examples_per_second(self.rank);
        let (colour, spark) = (hue(self.rank), self.spark(now));
        let (bar, names) = phases(&now.averages.phases(self.rank));
        format!(
            "<section class=\"card device\"><h3><i style=\"background:{colour}\"></i>{} <small>{}</small></h3>\
             <p class=\"rate\">{} <small>examples/s, {} GFLOP/s</small></p>{spark}{bar}\
             <p class=\"key\">{names}</p></section>",
            escaped(&self.name),
            self.place,
            number(rate, 1),
            number(rate * self.flops_per_example / 1e9, 1)
        )
    }

    /// Its rate over the run so far.
    fn spark(&self, now: &Snapshot) -> String {
        let rates: Vec<f64> = now
            .history
            .points
            .iter()
            .map(|point| point.examples.get(self.rank).map_or(0.0, |&all| all as f64 / point.time.as_secs_f64()))
            .filter(|rate| rate.is_finite())
            .collect();
        let highest = rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let across = WIDTH / rates.len().saturating_sub(1).max(1) as f64;
        let mut points = String::new();
        for (index, rate) in rates.iter().enumerate() {
            let (x, y) = (across * index as f64, HEIGHT - 1.5 - (HEIGHT - 3.0) * rate / highest);
            // Writing to a String cannot fail.
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        format!(
            "<svg class=\"spark\" role=\"img\" aria-label=\"examples per second over the run\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             preserveAspectRatio=\"none\"><polyline points=\"{points}\" style=\"stroke:{}\"/></svg>",
            hue(self.rank)
        )
    }
}

/// The shares of the phases as a bar, and by name.
fn phases(seconds: &[f64; Phase::ALL.len()]) -> (String, String) {
    let whole: f64 = seconds.iter().sum();
    let (mut at, mut bar, mut names) = (0.0, String::new(), String::new());
    for (phase, time) in Phase::ALL.into_iter().zip(seconds) {
        let (name, share) = (phase.name(), if whole > 0.0 { time / whole } else { 0.0 });
        let percent = format!("{:.1} %", 100.0 * share);
        // Writing to a String cannot fail.
        let _ = write!(
            bar,
            "<rect x=\"{:.2}\" y=\"0\" width=\"{:.2}\" height=\"1\" style=\"fill:var(--{name})\">\
             <title>{name} {percent}</title></rect>",
            100.0 * at,
            100.0 * share
        );
        if share >= WORTH_NAMING {
            let _ = write!(names, "<span><i style=\"background:var(--{name})\"></i>{name} {percent}</span>");
        }
        at += share;
    }
    let svg = format!(
        "<svg class=\"bar\" role=\"img\" aria-label=\"time by phase\" viewBox=\"0 0 100 1\" \
         preserveAspectRatio=\"none\">{bar}</svg>"
    );
    (svg, names)
}

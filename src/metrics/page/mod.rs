//! The page for people: a live picture of the run, made here and whole in itself. It asks no other place for anything,
//! and its header forbids it to.
//!
//! * [`chart`] loss and accuracy as curves
//! * [`device`] a device's rate and where its time goes
//! * [`picture`] the plan: who holds what, and what travels
//!
//! `refresh.js` asks for the page again every two seconds and puts the new one in place of the old.

pub mod chart;
pub mod device;
pub mod picture;

use super::history::History;
use super::window::Averages;
use super::{Progress, Watched};
use crate::error::Result;
use crate::layers::Outcome;
use crate::recipe::duration::show;
use crate::report::table::commas;
use chart::Curve;
use std::fmt::Write;
use std::time::Duration;

/// What the browser is allowed: what stands in the page itself, and to ask for the page again.
pub const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'";
const STYLE: &str = include_str!("style.css");
const REFRESH: &str = include_str!("refresh.js");
/// Colours that devices have; more devices begin again.
const HUES: usize = 8;

/// All that the page shows at a time.
pub struct Snapshot {
    /// How far the run is.
    pub progress: Progress,
    /// The last half minute.
    pub averages: Averages,
    /// The run so far.
    pub history: History,
}

/// What of the page stays as it is.
pub struct Page {
    title: String,
    about: String,
    devices: Vec<device::Panel>,
    picture: String,
}

impl Page {
    /// The page of a run.
    pub fn new(watched: &Watched) -> Self {
        let plan = &watched.plan;
        let about = format!("{} {}, {}", plan.mode, plan.mesh, watched.precision);
        let devices = watched.shown().map(|(rank, name)| device::Panel::new(plan, rank, name)).collect();
        Self { title: plan.model.name.clone(), about, devices, picture: picture::draw(plan, &watched.devices) }
    }

    /// The page as it is now.
    ///
    /// # Errors
    /// What the drawing library reports.
    pub fn html(&self, now: &Snapshot) -> Result<String> {
        let (title, picture) = (escaped(&self.title), &self.picture);
        let (head, tiles, curves) = (self.head(&now.progress, &now.averages), tiles(now), curves(now)?);
        let devices: String = self.devices.iter().map(|panel| panel.html(now)).collect();
        Ok(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · mpt</title>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <link rel=\"icon\" href=\"data:,\">\
             <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript><style>{STYLE}</style></head>\n\
             <body><p class=\"lost\">The run has ended, or cannot be reached: this is how it was last seen.</p>\n\
             <main>{head}\n{tiles}\n<div class=\"halves\"><div>{curves}\n<div class=\"devices\">{devices}</div></div>\n\
             <section class=\"card\"><h2>Who holds what, and what travels</h2>{picture}</section></div>\n\
             <footer>Rates and training figures are of the last 30 s of training. What travels is counted in \
             values for each example, as a device sends them. For Prometheus: <a href=\"/metrics\">/metrics</a>\
             </footer></main>\n\
             <script>{REFRESH}</script></body></html>\n"
        ))
    }

    fn head(&self, progress: &Progress, averages: &Averages) -> String {
        let (class, state) = progress.state(averages.is_late());
        let share = 100.0 * progress.step as f64 / progress.total_steps.max(1) as f64;
        let step = averages.step_seconds();
        let left = Duration::try_from_secs_f64(step * progress.remaining_steps() as f64).ok();
        let left = left.filter(|left| !left.is_zero()).map(|left| format!(", {} of training left", show(left)));
        let bound = progress.bottleneck.as_ref().map(|found| format!("epoch {}: {found}", commas(found.epoch)));
        let bound = bound.map(|line| format!("<p class=\"soft\">{}</p>", escaped(&line)));
        format!(
            "<div class=\"top\"><h1>{}</h1><span class=\"soft\">{}</span><span class=\"state {class}\">{}</span></div>\
             <div class=\"progress\"><i style=\"width:{share:.2}%\"></i></div>\
             <p class=\"soft\">epoch {} of {}, step {} of {}{}</p>{}",
            escaped(&self.title),
            escaped(&self.about),
            escaped(&state),
            commas(progress.epoch),
            commas(progress.epochs),
            commas(progress.step),
            commas(progress.total_steps),
            left.unwrap_or_default(),
            bound.unwrap_or_default()
        )
    }
}

fn tiles(now: &Snapshot) -> String {
    let Snapshot { progress, averages, history } = now;
    let test = history.tests.last().map(|test| test.outcome).unwrap_or_default();
    let values = [
        ("examples/s", number(averages.job_examples_per_second(), 1)),
        ("train loss", number(averages.outcome.loss(), 3)),
        ("train accuracy", percent(averages.outcome.accuracy())),
        ("test accuracy", percent(test.accuracy())),
        ("a step", seconds(averages.step_seconds())),
        ("learning rate", short(progress.learning_rate)),
    ];
    let tile = |(name, value): (&str, String)| format!("<div class=\"card\"><small>{name}</small><b>{value}</b></div>");
    format!("<div class=\"tiles\">{}</div>", values.map(tile).concat())
}

fn curves(now: &Snapshot) -> Result<String> {
    let per_epoch = now.progress.steps_per_epoch.max(1) as f64;
    let chart = |title: &str, of: fn(&Outcome) -> f64, top: Option<f64>| -> Result<String> {
        let train = now.history.points.iter().map(|point| (point.step as f64 / per_epoch, of(&point.outcome)));
        let test = now.history.tests.iter().map(|test| (test.step as f64 / per_epoch, of(&test.outcome)));
        let curves = [
            Curve { name: "train", colour: "train", points: train.collect(), marked: false },
            Curve { name: "test", colour: "test", points: test.collect(), marked: true },
        ];
        let svg = chart::draw(title, "epoch", &curves, top)?;
        let mut keys = String::new();
        for Curve { name, colour, .. } in &curves {
            // Writing to a String cannot fail.
            let _ = write!(keys, "<span><i style=\"background:var(--{colour})\"></i>{name}</span>");
        }
        Ok(format!("<section class=\"card\"><h2>{title}</h2>{svg}<p class=\"key\">{keys}</p></section>"))
    };
    let (loss, accuracy) = (chart("Loss", Outcome::loss, None)?, chart("Accuracy", Outcome::accuracy, Some(1.0))?);
    Ok(format!("<div class=\"curves\">{loss}{accuracy}</div>"))
}

/// A text as it may stand in the page, in attributes too.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            other => safe.push(other),
        }
    }
    safe
}

/// The colour of a rank's device.
pub fn hue(rank: usize) -> String {
    format!("var(--d{})", rank % HUES)
}

/// A number with so many digits after the point; a dash where it is not known.
pub fn number(value: f64, digits: usize) -> String {
    match value {
        unknown if !unknown.is_finite() => "–".into(),
        large if large >= 1e4 => commas(large as u64),
        value => format!("{value:.digits$}"),
    }
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { number(share, 1) }
}

fn seconds(time: f64) -> String {
    match time {
        short if short < 0.1 => format!("{} ms", number(1e3 * short, 1)),
        time => format!("{} s", number(time, 2)),
    }
}

/// A learning rate: neither digits that say nothing nor too few.
fn short(value: f64) -> String {
    match value {
        unknown if !unknown.is_finite() => number(unknown, 0),
        small if small != 0.0 && small.abs() < 1e-3 => format!("{small:.2e}"),
        value => format!("{}", (value * 1e5).round() / 1e5),
    }
}

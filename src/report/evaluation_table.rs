//! What an evaluation came to: lines and a table of answers by class, or JSON.

use super::table::{commas, table, text};
use crate::checkpoint::Position;
use crate::engine::evaluation::{Evaluated, Tally};
use crate::plan::{Mesh, Mode};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// The most classes that a table has room for.
const MOST_COLUMNS: usize = 20;

/// What was evaluated, and where.
pub struct Heading {
    /// The model's name.
    pub model: String,
    /// The checkpoint's folder.
    pub checkpoint: PathBuf,
    /// Where the run stood then.
    pub position: Position,
    /// The source of the test set.
    pub data: &'static str,
    /// How many views of each image were judged together.
    pub views: usize,
    /// How the work was shared.
    pub layout: (Mode, Mesh),
    /// The type of the numbers.
    pub precision: &'static str,
    /// The device of each rank.
    pub devices: Vec<String>,
}

impl Heading {
    /// `tiny after step 12 on the test set of synthetic: model-parallel 1x2, fp32`; or `on 10 views of each in the test set of`.
    pub fn line(&self) -> String {
        let Self { model, position, data, views, layout: (mode, mesh), precision, .. } = self;
        let views = if *views == 1 { String::new() } else { format!("{views} views of each in ") };
        let step = commas(position.step);
        format!("{model} after step {step} on {views}the test set of {data}: {mode} {mesh}, {precision}")
    }
}

/// Lines for people, and for few classes the table of which was answered for which.
pub fn render(heading: &Heading, evaluated: &Evaluated) -> String {
    let Evaluated { outcome, tally, .. } = evaluated;
    let (loss, top_1, top_5) = (outcome.loss(), outcome.accuracy(), top_5(evaluated));
    let mut lines =
        format!("loss {loss:.3}, top-1 {top_1:.4}, top-5 {top_5:.4}, {} examples\n", commas(outcome.examples));
    // Writing to a String cannot fail.
    let _ = writeln!(lines, "{}", heading.line());
    if tally.classes <= MOST_COLUMNS {
        lines += &format!("\n{}", answers(tally));
    }
    lines
}

fn answers(tally: &Tally) -> String {
    let classes = 0..tally.classes;
    let numbers: Vec<String> = classes.clone().map(|class| class.to_string()).collect();
    let headings: Vec<&str> =
        ["class \\ answer"].into_iter().chain(numbers.iter().map(String::as_str)).chain(["right"]).collect();
    let right: Vec<usize> = (1..headings.len()).collect();
    let mut rows = table(&headings, &right);
    for class in classes {
        let row = &tally.confusion[class * tally.classes..(class + 1) * tally.classes];
        let share = match tally.of_class(class) {
            Some([examples, correct, _]) if examples > 0 => format!("{:.4}", correct as f64 / examples as f64),
            _ => "-".to_owned(),
        };
        let cells = row.iter().map(|&count| if count == 0 { ".".to_owned() } else { count.to_string() });
        rows.add_row([class.to_string()].into_iter().chain(cells).chain([share]));
    }
    text(&rows)
}

fn top_5(evaluated: &Evaluated) -> f64 {
    evaluated.tally.among_five as f64 / evaluated.outcome.examples as f64
}

/// The same for programs. `confusion[class][answer]` counts examples; it and `classes` are null where there are too many
/// classes for it.
pub fn to_json(heading: &Heading, evaluated: &Evaluated) -> Value {
    let Evaluated { outcome, tally, .. } = evaluated;
    let by_class = |class| {
        let [examples, correct, answered] = tally.of_class(class)?;
        Some(json!({ "class": class, "examples": examples, "correct": correct, "answered": answered }))
    };
    let confusion: Vec<&[u64]> = tally.confusion.chunks(tally.classes.max(1)).collect();
    let (mode, mesh) = heading.layout;
    json!({
        "checkpoint": heading.checkpoint.display().to_string(),
        "step": heading.position.step,
        "epoch": heading.position.epoch,
        "model": heading.model,
        "data": heading.data,
        "views": heading.views,
        "mode": mode.name(),
        "mesh": mesh.to_string(),
        "precision": heading.precision,
        "devices": heading.devices,
        "examples": outcome.examples,
        "loss": outcome.loss(),
        "correct": outcome.correct,
        "top_1": outcome.accuracy(),
        "among_five": tally.among_five,
        "top_5": top_5(evaluated),
        "classes": (0..tally.classes).map(by_class).collect::<Option<Vec<_>>>(),
        "confusion": (!confusion.is_empty()).then_some(confusion),
    })
}

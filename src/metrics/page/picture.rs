//! The plan as a picture: a column a device, a row a stage of layers, in it the channels that the device holds, and between the
//! rows what travels.

use super::{escaped, hue};
use crate::model::Channels;
use crate::plan::{Adjoint, Exchange, Placement, Plan};
use crate::report::diagram::lanes::shown;
use crate::report::diagram::stages::stages;
use crate::report::plan_table;
use crate::report::table::commas;
use std::fmt::Write;

/// The picture's width in units that come to about a pixel each on a phone.
const WIDTH: f64 = 320.0;
/// Room between two columns, and between two groups of them that see different examples.
const GAP: f64 = 10.0;
const GROUP_GAP: f64 = 22.0;
/// Heights of a bar of channels, of a line of text, of the ways between two rows, and of the room below a bar.
const BAR: f64 = 12.0;
const CAPTION: f64 = 15.0;
const WAYS: f64 = 26.0;
const ROW_GAP: f64 = 9.0;
/// The letters that have room in a line.
const LETTERS: usize = 52;

/// The picture of a plan, with the name of each rank's device.
pub fn draw(plan: &Plan, devices: &[String]) -> String {
    let mut canvas = Canvas::new(plan);
    canvas.heads(devices);
    canvas.row("image", &plan.model.input.to_string(), 0);
    for stage in stages(plan) {
        let first = stage.first();
        for exchange in plan.exchanges.iter().filter(|exchange| exchange.reader == first) {
            canvas.travel(exchange);
        }
        let (output, split) = (plan.model.layers[first].output, plan_table::weights(plan.layers[first].weights));
        let about = if split.is_empty() { output.to_string() } else { format!("{output}, {split}") };
        let names = stage.names(&plan.model).join(" · ");
        canvas.row(&shortened(&names, LETTERS - about.len()), &about, first + 1);
    }
    canvas.sums();
    canvas.svg()
}

/// A text in so many letters at most.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// What has been drawn so far, from the top.
struct Canvas<'p> {
    plan: &'p Plan,
    /// The ranks that have a column.
    columns: usize,
    /// The width of a column.
    width: f64,
    height: f64,
    text: String,
}

impl<'p> Canvas<'p> {
    fn new(plan: &'p Plan) -> Self {
        let (columns, model) = (shown(plan.mesh), plan.mesh.model);
        let groups = columns / model;
        let gaps = GAP * (columns - groups) as f64 + GROUP_GAP * (groups - 1) as f64;
        Self { plan, columns, width: (WIDTH - gaps) / columns as f64, height: 0.0, text: String::new() }
    }

    /// Where the column of a rank begins.
    fn left(&self, rank: usize) -> f64 {
        let group = self.plan.mesh.data_rank(rank);
        rank as f64 * (self.width + GAP) + group as f64 * (GROUP_GAP - GAP)
    }

    fn middle(&self, rank: usize) -> f64 {
        self.left(rank) + self.width / 2.0
    }

    // Writing to a String cannot fail.
    fn say(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        let _ = write!(self.text, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
    }

    fn heads(&mut self, devices: &[String]) {
        let mesh = self.plan.mesh;
        if self.columns < mesh.ranks() {
            let text = format!("each of {} groups of examples is split like this", mesh.data);
            self.say(WIDTH / 2.0, 11.0, "mid soft", &text);
            self.height += CAPTION;
        } else if mesh.data > 1 {
            for group in 0..mesh.data {
                let (first, last) = (mesh.rank(group, 0), mesh.rank(group, mesh.model - 1));
                let middle = (self.left(first) + self.left(last) + self.width) / 2.0;
                self.say(middle, 11.0, "mid soft", &format!("examples {}/{}", group + 1, mesh.data));
            }
            self.height += CAPTION;
        }
        for rank in 0..self.columns {
            let name = devices.get(rank).map_or("", String::as_str);
            self.say(self.middle(rank), self.height + 11.0, "mid name", name);
        }
        self.height += CAPTION + 4.0;
    }

    /// A row: its names, what it gives, and for each rank which of the activation's channels it holds.
    fn row(&mut self, names: &str, about: &str, activation: usize) {
        self.say(0.0, self.height + 10.0, "name", names);
        self.say(WIDTH, self.height + 10.0, "end soft", about);
        self.height += CAPTION;
        let channels = self.plan.model.shape(activation).channels;
        let partial = matches!(self.plan.placements[activation], Placement::Partial);
        for rank in 0..self.columns {
            let held = self.plan.held(activation, self.plan.mesh.model_rank(rank));
            self.bar(rank, &held, channels, partial);
        }
        self.height += BAR + ROW_GAP;
    }

    fn bar(&mut self, rank: usize, held: &Channels, channels: usize, partial: bool) {
        let (left, top, width) = (self.left(rank), self.height, self.width);
        let what =
            if partial { format!("a summand of all {channels}") } else { format!("channels {held} of {channels}") };
        let _ = write!(
            self.text,
            "<g><title>rank {rank}: {what}</title>\
             <rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"3\" class=\"slot\"/>"
        );
        for range in held.ranges() {
            let scale = width / channels.max(1) as f64;
            let (from, long) = (left + scale * range.start as f64, scale * range.len() as f64);
            let opacity = if partial { 0.4 } else { 1.0 };
            let _ = write!(
                self.text,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{long:.1}\" height=\"{BAR}\" rx=\"3\" \
                 style=\"fill:{}\" opacity=\"{opacity}\"/>",
                hue(rank)
            );
        }
        self.text += "</g>";
    }

    /// What an exchange brings from whom to whom, and back.
    fn travel(&mut self, exchange: &Exchange) {
        let model = self.plan.mesh.model;
        for group in 0..self.columns / model {
            for transfer in exchange.transfers() {
                self.way(group * model + transfer.from, group * model + transfer.to);
            }
        }
        self.height += WAYS;
        let (values, back) = exchange.values_sent(&self.plan.model, 0);
        let returning = if exchange.adjoint == Adjoint::Sum && back > 0 { ", gradients back" } else { "" };
        let (operation, values) = (plan_table::operation(exchange), commas(values as u64));
        let source = self.plan.model.activation_name(exchange.source);
        let label = format!("{operation} of {source}: {values} values{returning}");
        self.say(WIDTH / 2.0, self.height + 4.0, "mid soft", &shortened(&label, LETTERS));
        self.height += CAPTION;
    }

    /// An arrow from one column to another.
    fn way(&mut self, from: usize, to: usize) {
        let (top, bottom) = (self.height - ROW_GAP + 2.0, self.height + WAYS - ROW_GAP);
        let (x, end, bend) = (self.middle(from), self.middle(to), (top + bottom) / 2.0);
        let (left, right, tip) = (end - 3.5, end + 3.5, bottom - 5.0);
        let _ = write!(
            self.text,
            "<path d=\"M{x:.1} {top:.1}C{x:.1} {bend:.1} {end:.1} {bend:.1} {end:.1} {bottom:.1}\
             M{left:.1} {tip:.1}L{end:.1} {bottom:.1}L{right:.1} {tip:.1}\" class=\"way\" style=\"stroke:{}\"/>",
            hue(from)
        );
    }

    /// What travels along the data axis.
    fn sums(&mut self) {
        let data = self.plan.mesh.data;
        if data > 1 {
            let text = format!("after backward: gradients summed over {data} groups, each updates its shard");
            self.say(WIDTH / 2.0, self.height + 10.0, "mid soft", &text);
            self.height += CAPTION;
        }
    }

    fn svg(self) -> String {
        let Self { text, height, .. } = self;
        format!(
            "<svg class=\"plan\" role=\"img\" aria-label=\"who holds what\" \
             viewBox=\"0 0 {WIDTH} {height:.0}\">{text}</svg>"
        )
    }
}

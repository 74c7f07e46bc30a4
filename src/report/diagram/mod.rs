//! A plan as a diagram, like the one of the two GPUs in the network's paper: a lane for each device, in it a solid for what
//! each stage of layers leaves there, and arrows from lane to lane where something is exchanged.
//!
//! * [`stages`] which layers are shown as one
//! * [`lanes`] which devices are shown, and their towers
//! * [`layout`] where everything lies
//!
//! The live page shows the same stages, from the top down.

pub mod lanes;
pub mod layout;
pub mod stages;

use super::plan_table;
use super::table::commas;
use crate::model::ActivationId;
use crate::plan::{Exchange, Plan};
use layout::{Column, EDGE, EXCHANGE_LINES, LINE, Layout, NAMES, Solid};
use std::fmt::Write;

/// The colours of devices, told apart by the colour-blind too (Okabe and Ito, 2008); more devices begin again.
const HUES: [[u8; 3]; lanes::MOST_DEVICES] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [182, 90, 146],
    [166, 124, 0],
    [58, 155, 208],
    [107, 91, 149],
    [122, 127, 135],
];
/// Of what no device has for itself.
const SHARED: [u8; 3] = [150, 158, 168];
const INK: &str = "#16202b";
const SOFT: &str = "#5d6875";
const LINK: &str = "#8a94a0";

/// The diagram of a plan, as the text of an SVG file.
pub fn draw(plan: &Plan) -> String {
    let towers = lanes::by_towers(plan);
    let layout = Layout::new(towers.as_ref().unwrap_or(plan), towers.is_some());
    let mut canvas = Canvas { layout: &layout, text: String::new() };
    canvas.titles(plan);
    canvas.bands();
    canvas.frames(plan);
    for column in 1..layout.columns.len() {
        canvas.links(column);
        canvas.exchanges(column);
    }
    for column in 0..layout.columns.len() {
        canvas.solids(column);
        canvas.below(column);
    }
    canvas.notes(plan);
    let Layout { width, height, .. } = layout;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>{} over {}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
        plan.model.name,
        plan_table::devices(plan.mesh.ranks()),
        canvas.text
    )
}

/// Where a text is fixed to its place.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
}

/// What has been drawn so far. (What stands in it is words of mpt's own and names of layers, which hold letters, digits, `-`,
/// `_` and `.` only. Writing to a String cannot fail.)
struct Canvas<'l, 'p> {
    layout: &'l Layout<'p>,
    text: String,
}

impl Canvas<'_, '_> {
    fn say(&mut self, (x, y): (f64, f64), anchor: Anchor, style: &str, text: &str) {
        let anchor = if let Anchor::Middle = anchor { " text-anchor=\"middle\"" } else { "" };
        let _ = writeln!(self.text, "<text x=\"{x:.1}\" y=\"{y:.1}\"{anchor} {style}>{text}</text>");
    }

    fn titles(&mut self, plan: &Plan) {
        let (mesh, devices) = (plan.mesh, plan_table::devices(plan.mesh.ranks()));
        let title =
            format!("{} over {devices} ({}): {} data x {} model", plan.model.name, plan.mode, mesh.data, mesh.model);
        self.say((EDGE, 22.0), Anchor::Start, &format!("font-size=\"15\" font-weight=\"600\" fill=\"{INK}\""), &title);
        let about = match (self.layout.by_towers, plan.exchanges.is_empty()) {
            (true, _) => "each device holds the whole network; arrows lead from tower to tower within it",
            (_, true) => "each device holds the whole network",
            _ => "values: what a device sends forward for each image",
        };
        self.say((EDGE, 40.0), Anchor::Start, &format!("fill=\"{SOFT}\""), about);
    }

    /// Where something travels, from the words for it down to the last lane.
    fn bands(&mut self) {
        let (top, bottom) = self.layout.lanes;
        for Column { left, gap, exchanges, .. } in &self.layout.columns {
            for (index, &id) in exchanges.iter().enumerate() {
                let begin = top - LINE * (EXCHANGE_LINES * (exchanges.len() - index)) as f64;
                for (line, (style, words)) in self.words(&self.layout.plan.exchanges[id]).into_iter().enumerate() {
                    let place = (left - gap / 2.0, begin + LINE * line as f64 + 8.0);
                    self.say(place, Anchor::Middle, &style, &words);
                }
            }
            if !exchanges.is_empty() {
                let _ = writeln!(
                    self.text,
                    "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#f1f3f6\"/>",
                    left - gap + 5.0,
                    gap - 10.0,
                    bottom - top
                );
            }
        }
    }

    /// What is told of an exchange: how it is carried out, what a device sends, and how gradients go back.
    fn words(&self, exchange: &Exchange) -> Vec<(String, String)> {
        let (strong, soft) =
            (format!("font-weight=\"600\" fill=\"{INK}\""), format!("font-size=\"10\" fill=\"{SOFT}\""));
        if self.layout.by_towers {
            return vec![(soft.clone(), String::new()), (soft, "across towers".to_owned())];
        }
        let plan = self.layout.plan;
        let sent = (0..plan.mesh.model).map(|rank| exchange.values_sent(&plan.model, rank).0 as u64);
        let values = plan_table::spread(sent, commas);
        vec![
            (strong, plan_table::operation(exchange).to_owned()),
            (soft.clone(), format!("{} values", if values.is_empty() { "0" } else { &values })),
            (soft, format!("back: {}", plan_table::adjoint(exchange))),
        ]
    }

    /// A frame for each device.
    fn frames(&mut self, plan: &Plan) {
        let layout = self.layout;
        for (device, lanes) in layout.devices().enumerate() {
            let (first, last) = (layout.middles[lanes.start], layout.middles[lanes.end - 1]);
            let (top, bottom) = (layout.arc(lanes.start, 0) - 4.0, last + layout.lane / 2.0 + LINE + 4.0);
            let (width, hue) = (layout.width - 2.0 * EDGE, colour(HUES[device % HUES.len()], 0.0));
            let _ = writeln!(
                self.text,
                "<rect x=\"{EDGE}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"8\" fill=\"{hue}\" \
                 fill-opacity=\"0.06\" stroke=\"{hue}\" stroke-opacity=\"0.35\"/>",
                bottom - top
            );
            let style = format!("font-weight=\"600\" fill=\"{hue}\"");
            self.say((EDGE + 10.0, (first + last) / 2.0 + 4.0), Anchor::Start, &style, &format!("device {device}"));
            if plan.mesh.data > 1 && device.is_multiple_of(plan.mesh.model) {
                let words = format!("images {}/{}", device / plan.mesh.model + 1, plan.mesh.data);
                self.say(
                    (EDGE + 10.0, top + 14.0),
                    Anchor::Start,
                    &format!("font-size=\"10\" fill=\"{SOFT}\""),
                    &words,
                );
            }
            for (tower, lane) in lanes.clone().enumerate().filter(|_| lanes.len() > 1) {
                let place = (EDGE + 18.0, layout.middles[lane] + 4.0);
                let place =
                    if lanes.len() % 2 == 1 && tower == lanes.len() / 2 { (place.0, place.1 + LINE) } else { place };
                let style = format!("font-size=\"10\" fill=\"{SOFT}\"");
                self.say(place, Anchor::Start, &style, &format!("tower {}", tower + 1));
            }
        }
    }

    /// What a stage reads of its own lane.
    fn links(&mut self, column: usize) {
        let layout = self.layout;
        for (lane, &from) in
            (0..layout.middles.len()).flat_map(|lane| layout.columns[column].reads.iter().map(move |from| (lane, from)))
        {
            let (source, reader) = (layout.place(from, lane), layout.place(column, lane));
            if from + 1 == column {
                self.arrow((source.right() + 2.0, source.middle), (reader.left - 3.0, reader.middle), LINK);
                continue;
            }
            let Some(y) = self.arc_of(from, column, lane) else { continue };
            let (begin, end) = (source.right() + 2.0, reader.left + (reader.width + reader.skew) / 2.0);
            let top = reader.middle - (reader.height + reader.skew) / 2.0 - 3.0;
            let _ = writeln!(
                self.text,
                "<path d=\"M{begin:.1} {:.1}h2q4 0 4 -4V{:.1}q0 -4 4 -4H{:.1}q4 0 4 4V{top:.1}m-3 -5l3 5l3 -5\" fill=\"none\" \
                 stroke=\"{LINK}\" stroke-width=\"1.4\"/>",
                source.middle,
                y + 4.0,
                end - 4.0
            );
        }
    }

    fn arc_of(&self, from: usize, to: usize, lane: usize) -> Option<f64> {
        let found = self.layout.arcs.iter().find(|&&(begin, end, _)| (begin, end) == (from, to));
        found.map(|&(.., line)| self.layout.arc(lane, line))
    }

    /// What a stage reads of other lanes.
    fn exchanges(&mut self, column: usize) {
        let layout = self.layout;
        let Column { left, gap, exchanges, .. } = &layout.columns[column];
        let model = layout.plan.mesh.model;
        for exchange in exchanges.iter().map(|&id| &layout.plan.exchanges[id]) {
            let from = (0..column).find(|&source| self.gives(source) == exchange.source).unwrap_or(column - 1);
            for (group, way) in (0..layout.middles.len() / model)
                .flat_map(|group| exchange.transfers().into_iter().map(move |way| (group, way)))
            {
                let (sender, receiver) = (group * model + way.from, group * model + way.to);
                let (source, reader) = (layout.place(from, sender), layout.place(column, receiver));
                let begin = match self.arc_of(from, column, sender) {
                    Some(y) => (left - gap + 5.0, y),
                    None => (source.right() + 2.0, source.middle),
                };
                let stroke = if layout.by_towers { LINK.to_owned() } else { colour(HUES[sender % HUES.len()], 0.0) };
                self.arrow(begin, (reader.left - 3.0, reader.middle), &stroke);
            }
        }
    }

    /// The activation that others read of a column: what comes before the next column's first layer.
    fn gives(&self, column: usize) -> ActivationId {
        let next = self.layout.columns.get(column + 1);
        next.map_or(self.layout.plan.model.layers.len(), |next| next.activation - 1)
    }

    fn arrow(&mut self, (x, y): (f64, f64), (end, down): (f64, f64), stroke: &str) {
        let (bend, tip) = ((x + end) / 2.0, end - 5.0);
        let _ = writeln!(
            self.text,
            "<path d=\"M{x:.1} {y:.1}C{bend:.1} {y:.1} {bend:.1} {down:.1} {end:.1} {down:.1}M{tip:.1} {:.1}L{end:.1} {down:.1}\
             L{tip:.1} {:.1}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"1.4\"/>",
            down - 3.0,
            down + 3.0
        );
    }

    /// What each lane holds of what a stage gives.
    fn solids(&mut self, column: usize) {
        let layout = self.layout;
        let (activation, model) = (layout.columns[column].activation, layout.plan.mesh.model);
        let joined = layout.is_joined(activation);
        let lanes = (0..layout.middles.len()).step_by(if joined { model } else { 1 });
        for lane in lanes {
            let held = layout.held(activation, lane).len();
            let device = if layout.by_towers { lane / model } else { lane };
            let hue = if joined && model > 1 && !layout.by_towers { SHARED } else { HUES[device % HUES.len()] };
            let partial = layout.is_partial(activation);
            let solid = layout.place(column, lane);
            if held > 0 {
                self.solid(solid, hue, partial);
            }
            let below = solid.middle + if joined { (solid.height + solid.skew) / 2.0 } else { layout.lane / 2.0 };
            let middle = layout.columns[column].left + layout.columns[column].width / 2.0;
            self.say(
                (middle, below + 11.0),
                Anchor::Middle,
                &format!("font-size=\"10\" fill=\"{SOFT}\""),
                &layout.caption(activation, lane),
            );
        }
    }

    fn solid(&mut self, solid: Solid, hue: [u8; 3], partial: bool) {
        let Solid { left, middle, width, height, skew } = solid;
        let (top, right) = (middle - (height + skew) / 2.0 + skew, left + width);
        let (front, above, side) = (colour(hue, 0.12), colour(hue, 0.45), colour(hue, -0.18));
        // A summand is not the thing itself.
        let style = if partial { "fill-opacity=\"0.35\" stroke-dasharray=\"3 2\"" } else { "" };
        let _ = writeln!(
            self.text,
            "<g stroke=\"#fff\" stroke-width=\"0.7\" stroke-linejoin=\"round\" {style}>\
             <rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{front}\"/>\
             <path d=\"M{left:.1} {top:.1}l{skew:.1} -{skew:.1}h{width:.1}l-{skew:.1} {skew:.1}z\" fill=\"{above}\"/>\
             <path d=\"M{right:.1} {top:.1}l{skew:.1} -{skew:.1}v{height:.1}l-{skew:.1} {skew:.1}z\" fill=\"{side}\"/></g>"
        );
    }

    /// The layers of a stage.
    fn below(&mut self, column: usize) {
        let Column { left, width, lines, .. } = &self.layout.columns[column];
        let (x, top) = (left + width / 2.0, self.layout.lanes.1 + LINE + 6.0);
        for (index, line) in lines.iter().enumerate() {
            let style = match index {
                0 => format!("font-weight=\"600\" fill=\"{INK}\""),
                _ => format!("font-size=\"10\" fill=\"{}\"", if index == 1 { INK } else { SOFT }),
            };
            self.say((x, top + LINE * index as f64), Anchor::Middle, &style, line);
        }
    }

    fn notes(&mut self, plan: &Plan) {
        let (data, all) = (plan.mesh.data, plan.mesh.ranks());
        let mut words = Vec::new();
        if data > 1 {
            words.push(format!("after backward: gradients are summed over the {data} groups of images"));
        }
        if lanes::shown(plan.mesh) < all {
            words.push(format!("each of {data} groups of images is split like this"));
        }
        let place = (EDGE + NAMES, self.layout.height - EDGE);
        self.say(place, Anchor::Start, &format!("fill=\"{SOFT}\""), &words.join("; "));
    }
}

/// A colour made lighter by a share, or darker if that is negative.
fn colour(hue: [u8; 3], lighter: f64) -> String {
    let mixed = |part: u8| {
        let towards = if lighter > 0.0 { 255.0 } else { 0.0 };
        (f64::from(part) + lighter.abs() * (towards - f64::from(part))).round() as u8
    };
    let [red, green, blue] = hue.map(mixed);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

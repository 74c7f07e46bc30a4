//! Where everything lies in the picture, in pixels: columns of stages from left to right, lanes of devices from the top.

use super::lanes;
use super::stages::{Stage, stages};
use crate::model::{ActivationId, Channels, IMAGE, Shape};
use crate::plan::{Exchange, ExchangeId, Placement, Plan};
use crate::report::table::commas;
use std::ops::Range;

/// Room on the left for the lanes' names.
pub const NAMES: f64 = 84.0;
/// Room at every edge.
pub const EDGE: f64 = 10.0;
/// Room for the title.
const TITLE: f64 = 52.0;
/// Room for a line of text.
pub const LINE: f64 = 14.0;
/// Lines of text for each exchange.
pub const EXCHANGE_LINES: usize = 3;
/// Room before a column, without and with an exchange.
const GAP: f64 = 22.0;
const EXCHANGE_GAP: f64 = 92.0;
/// Room between the lanes of two devices, and more between groups of them that see different examples.
const LANE_GAP: f64 = 12.0;
const GROUP_GAP: f64 = 26.0;
/// Room between the lines of what is read past other stages.
const ARC: f64 = 9.0;
/// About the width of a letter.
const LETTER: f64 = 6.3;
/// How far the sides of a solid lead back, as a share of the image's width.
const SKEW: f64 = 0.25;
/// The most names of layers that are told below a column.
const MOST_NAMES: usize = 5;

/// What one lane holds of what a stage gives, as a solid: as high as the image, as thick as there are channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solid {
    /// Left edge of its front.
    pub left: f64,
    /// Its middle, from the top.
    pub middle: f64,
    /// Width and height of its front.
    pub width: f64,
    /// See `width`.
    pub height: f64,
    /// How far its sides lead back, upwards and to the right.
    pub skew: f64,
}

impl Solid {
    /// Where what it gives begins to travel.
    pub fn right(&self) -> f64 {
        self.left + self.width + self.skew
    }
}

/// A stage, or the image, from its left edge.
pub struct Column {
    /// Left edge.
    pub left: f64,
    /// Width, without the room before it.
    pub width: f64,
    /// The room before it.
    pub gap: f64,
    /// What stands below it.
    pub lines: Vec<String>,
    /// The activation that is drawn.
    pub activation: ActivationId,
    /// The exchanges before it.
    pub exchanges: Vec<ExchangeId>,
    /// The columns that it reads.
    pub reads: Vec<usize>,
}

/// The whole picture.
pub struct Layout<'p> {
    /// What is drawn: a rank of the model axis is a lane.
    pub plan: &'p Plan,
    /// Whether lanes are towers, all of one device, and not devices.
    pub by_towers: bool,
    /// The image, then the stages.
    pub columns: Vec<Column>,
    /// The middle of each lane.
    pub middles: Vec<f64>,
    /// The height of what a lane can hold.
    pub lane: f64,
    /// What is read past other stages: from which column, into which, and the line above the lanes that it takes.
    pub arcs: Vec<(usize, usize, usize)>,
    /// Where the lanes begin and end.
    pub lanes: (f64, f64),
    /// The size of the picture.
    pub width: f64,
    /// See `width`.
    pub height: f64,
}

impl<'p> Layout<'p> {
    /// The picture of a plan.
    pub fn new(plan: &'p Plan, by_towers: bool) -> Self {
        let stages = stages(plan);
        let count = lanes::shown(plan.mesh);
        let lane = match count {
            1 | 2 => 104.0,
            3 | 4 => 84.0,
            _ => 64.0,
        };
        let mut layout = Self {
            plan,
            by_towers,
            columns: Vec::new(),
            middles: Vec::new(),
            lane,
            arcs: Vec::new(),
            lanes: (0.0, 0.0),
            width: 0.0,
            height: 0.0,
        };
        layout.put_columns(&stages);
        layout.put_arcs();
        layout.put_lanes(count);
        layout
    }

    fn put_columns(&mut self, stages: &[Stage]) {
        let plan = self.plan;
        let mut left = EDGE + NAMES;
        let image = (IMAGE, vec!["image".to_owned(), plan.model.input.to_string()], Vec::new(), Vec::new());
        let of_stage = |stage: &Stage| {
            let exchanges = self.exchanges_before(stage);
            (stage.first() + 1, lines(plan, stage), exchanges, columns_read(plan, stages, stage))
        };
        let described: Vec<_> = std::iter::once(image).chain(stages.iter().map(of_stage)).collect();
        for (activation, lines, exchanges, reads) in described {
            let gap = if exchanges.is_empty() { GAP } else { EXCHANGE_GAP };
            let letters = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            let letters = letters.max(self.caption(activation, 0).chars().count());
            let solid = self.solid(activation, &self.held(activation, 0));
            let width = (LETTER * letters as f64).max(solid.width + solid.skew).max(LETTER * 8.0);
            self.columns.push(Column { left: left + gap, width, gap, lines, activation, exchanges, reads });
            left += gap + width;
        }
        self.width = left + 2.0 * EDGE;
    }

    /// The exchanges before a stage that the picture tells of: within one device, those that lead from tower to tower.
    fn exchanges_before(&self, stage: &Stage) -> Vec<ExchangeId> {
        let told = |exchange: &Exchange| {
            exchange.reader == stage.first()
                && !(self.by_towers && (self.is_joined(exchange.source) || self.is_joined(stage.first() + 1)))
        };
        (0..self.plan.exchanges.len()).filter(|&id| told(&self.plan.exchanges[id])).collect()
    }

    /// Whether an activation is one solid for all lanes of a device, or of a group of devices that see the same image.
    pub fn is_joined(&self, activation: ActivationId) -> bool {
        let shared = activation == IMAGE || self.by_towers;
        shared && !matches!(self.plan.placements[activation], Placement::Shard(_))
    }

    /// Whether each lane has a summand of an activation.
    pub fn is_partial(&self, activation: ActivationId) -> bool {
        self.plan.placements[activation] == Placement::Partial && !self.is_joined(activation)
    }

    /// How many channels a lane holds, of how many.
    pub fn caption(&self, activation: ActivationId, lane: usize) -> String {
        let [held, all] = [self.held(activation, lane).len(), self.plan.model.shape(activation).channels];
        let [some, whole] = [held, all].map(|count| commas(count as u64));
        match held {
            _ if self.is_partial(activation) => format!("partial {whole}"),
            0 => "none".to_owned(),
            held if held == all => whole,
            _ => format!("{some} of {whole}"),
        }
    }

    fn put_arcs(&mut self) {
        let mut arcs: Vec<(usize, usize, usize)> = Vec::new();
        for (to, column) in self.columns.iter().enumerate() {
            for &from in column.reads.iter().filter(|&&from| from + 1 < to) {
                let taken =
                    |line: &usize| arcs.iter().any(|&(begin, end, other)| other == *line && begin < to && from < end);
                let line = (0..=arcs.len()).find(|line| !taken(line)).unwrap_or_default();
                arcs.push((from, to, line));
            }
        }
        self.arcs = arcs;
    }

    fn put_lanes(&mut self, count: usize) {
        let exchanges = self.columns.iter().map(|column| column.exchanges.len()).max().unwrap_or(0);
        let arcs = self.arcs.iter().map(|arc| arc.2 + 1).max().unwrap_or(0);
        let top = TITLE + LINE * (EXCHANGE_LINES * exchanges) as f64;
        let mut bottom = top;
        let model = self.plan.mesh.model;
        for lane in 0..count {
            if lane > 0 {
                let groups = lane.is_multiple_of(model) && !self.by_towers;
                bottom += if groups { GROUP_GAP } else { LANE_GAP };
            }
            let middle = bottom + ARC * arcs as f64 + self.lane / 2.0 + 4.0;
            self.middles.push(middle);
            bottom = middle + self.lane / 2.0 + LINE + 4.0;
        }
        let lines = self.columns.iter().map(|column| column.lines.len()).max().unwrap_or(0);
        self.lanes = (top, bottom);
        let notes = if self.plan.mesh.data > 1 { 2 } else { 0 };
        self.height = bottom + LINE * (lines + notes + 1) as f64 + EDGE;
    }

    /// The lanes that are drawn in one frame, a device's, beginning with each of these.
    pub fn devices(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let long = if self.by_towers { self.plan.mesh.model } else { 1 };
        (0..self.middles.len()).step_by(long).map(move |first| first..first + long)
    }

    /// The solid of a column in a lane.
    pub fn place(&self, column: usize, lane: usize) -> Solid {
        let Column { left, width, activation, .. } = self.columns[column];
        let model = self.plan.mesh.model;
        let joined = self.is_joined(activation);
        let held = self.held(activation, lane);
        let solid = self.solid(activation, &held);
        let (first, last) = (lane / model * model, lane / model * model + model - 1);
        let middle = if joined { (self.middles[first] + self.middles[last]) / 2.0 } else { self.middles[lane] };
        Solid { left: left + (width - solid.width - solid.skew) / 2.0, middle, ..solid }
    }

    /// The channels that a lane holds.
    pub fn held(&self, activation: ActivationId, lane: usize) -> Channels {
        self.plan.held(activation, self.plan.mesh.model_rank(lane))
    }

    /// Sizes grow with the roots of what they stand for: what is small stays visible.
    fn solid(&self, activation: ActivationId, held: &Channels) -> Solid {
        let Shape { pixels, .. } = self.plan.model.shape(activation);
        let shapes = || (0..=self.plan.model.layers.len()).map(|any| self.plan.model.shape(any));
        let most = |flat: bool| {
            let alike = shapes().filter(|shape| shape.pixels.is_none() == flat);
            alike.map(|shape| shape.channels).max().unwrap_or(1)
        };
        let root = |part: usize, whole: usize| (part as f64 / whole.max(1) as f64).sqrt();
        let (width, height, skew) = match pixels {
            Some((height, width)) => {
                let tallest = self.plan.model.input.pixels.map_or(height, |(height, width)| height.max(width));
                let side = |pixels: usize| self.lane * (0.14 + 0.64 * root(pixels, tallest).min(1.0));
                (4.0 + 30.0 * root(held.len(), most(false)), side(height), SKEW * side(width))
            }
            None => (9.0, self.lane * (0.1 + 0.8 * root(held.len(), most(true))), 3.0),
        };
        Solid { left: 0.0, middle: 0.0, width, height, skew }
    }

    /// The height of an arc above a lane.
    pub fn arc(&self, lane: usize, line: usize) -> f64 {
        self.middles[lane] - self.lane / 2.0 - ARC * line as f64 - 2.0
    }
}

/// What stands below a stage: its layers, and the shape that the first of them gives.
fn lines(plan: &Plan, stage: &Stage) -> Vec<String> {
    let mut names: Vec<String> = stage.names(&plan.model).into_iter().map(str::to_owned).collect();
    if names.len() > MOST_NAMES {
        names.truncate(MOST_NAMES - 1);
        names.push("…".to_owned());
    }
    names.insert(1, plan.model.layers[stage.first()].output.to_string());
    names
}

fn columns_read(plan: &Plan, stages: &[Stage], stage: &Stage) -> Vec<usize> {
    let of = |activation: ActivationId| match activation {
        IMAGE => 0,
        given => stages.iter().position(|stage| stage.gives() == given).map_or(0, |at| at + 1),
    };
    plan.model.layers[stage.first()].inputs.iter().map(|&input| of(input)).collect()
}

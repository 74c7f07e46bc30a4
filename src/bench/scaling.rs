//! How the rate grows with the number of devices.

use super::statistics::{Spread, median};
use super::workload::{self, Length};
use crate::engine::phases::Phase;
use crate::error::Result;
use crate::events::Step;
use crate::plan::Mode;
use crate::recipe::Recipe;
use std::collections::BTreeMap;

/// What stays the same when devices are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scaling {
    /// The batch: more devices are to be done with it sooner.
    Strong,
    /// The batch per device: more devices are to do more in the same time.
    Weak,
}

impl Scaling {
    /// The name in tables and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Weak => "weak",
        }
    }
}

/// One way to run the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// How the devices share the work.
    pub mode: Mode,
    /// How many.
    pub devices: usize,
    /// What stays the same.
    pub scaling: Scaling,
}

/// What was measured in one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The configuration.
    pub configuration: Configuration,
    /// Examples in a step, over all devices.
    pub batch_size: usize,
    /// Examples a second: the median and the quartiles over the rounds.
    pub rate: Spread,
    /// The rate as a multiple of one device's in the same round: the median and the quartiles over the rounds.
    pub speedup: Spread,
    /// The share of a step in which a device moves data, on average over devices.
    pub exchange_share: f64,
    /// The share of a step in which a device waits for another, on average over devices.
    pub wait_share: f64,
}

impl Row {
    /// The speed-up per device.
    pub fn efficiency(&self) -> f64 {
        self.speedup.median / self.configuration.devices as f64
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// From one device to so many.
    pub devices: usize,
    /// How often everything is measured, in turn.
    pub rounds: usize,
    /// Steps of each measurement.
    pub length: Length,
}

/// Every configuration of an extent. One device is the same in every mode; it is measured once.
fn configurations(devices: usize) -> Vec<Configuration> {
    let mut all = vec![Configuration { mode: Mode::Single, devices: 1, scaling: Scaling::Strong }];
    for devices in 2..=devices {
        for mode in [Mode::DataParallel, Mode::ModelParallel] {
            for scaling in [Scaling::Strong, Scaling::Weak] {
                all.push(Configuration { mode, devices, scaling });
            }
        }
    }
    all
}

/// Sees that a network can be laid out in every configuration of an extent, so that it is known before any is measured.
///
/// # Errors
/// It cannot.
pub fn check(base: &Recipe, extent: Extent) -> Result<()> {
    configurations(extent.devices).into_iter().try_for_each(|one| recipe(base, one, extent.length).map(|_| ()))
}

struct Measurement {
    rate: f64,
    exchange_share: f64,
    wait_share: f64,
}

/// Measures every configuration in turn, `rounds` times: what a noisy machine does to one of a round it is likely to do
/// to all of it. `heard` is told what is about to be measured, and `run` gives the timed steps of a recipe, unless none of
/// its ranks is in this process: where that is so of the first rank, nothing comes of it.
///
/// # Errors
/// The network cannot be laid out over the devices, or a rank failed.
pub fn measure(
    base: &Recipe,
    extent: Extent,
    run: &mut dyn FnMut(&Recipe) -> Result<Option<Vec<Step>>>,
    heard: &mut dyn FnMut(usize, Configuration),
) -> Result<Option<Vec<Row>>> {
    let all = configurations(extent.devices);
    let mut found: BTreeMap<usize, Vec<Measurement>> = BTreeMap::new();
    for round in 0..extent.rounds {
        for (index, &configuration) in all.iter().enumerate() {
            heard(round, configuration);
            let steps = run(&recipe(base, configuration, extent.length)?)?;
            let measured = steps.map(|steps| Measurement::of(&steps, batch_size(base, configuration)));
            found.entry(index).or_default().extend(measured);
        }
    }
    if found.values().any(Vec::is_empty) {
        return Ok(None);
    }
    let alone: Vec<f64> = found[&0].iter().map(|measured| measured.rate).collect();
    let rows = all.iter().enumerate().map(|(index, &configuration)| {
        let measured = &found[&index];
        let rates: Vec<f64> = measured.iter().map(|one| one.rate).collect();
        let speedups: Vec<f64> = rates.iter().zip(&alone).map(|(rate, alone)| rate / alone).collect();
        let share = |of: fn(&Measurement) -> f64| median(&measured.iter().map(of).collect::<Vec<_>>());
        Row {
            configuration,
            batch_size: batch_size(base, configuration),
            rate: Spread::of(&rates),
            speedup: Spread::of(&speedups),
            exchange_share: share(|one| one.exchange_share),
            wait_share: share(|one| one.wait_share),
        }
    });
    Ok(Some(rows.collect()))
}

fn batch_size(base: &Recipe, configuration: Configuration) -> usize {
    match configuration.scaling {
        Scaling::Strong => base.train.batch_size,
        Scaling::Weak => base.train.batch_size * configuration.devices,
    }
}

fn recipe(base: &Recipe, configuration: Configuration, length: Length) -> Result<Recipe> {
    let mesh = configuration.mode.mesh(configuration.devices)?;
    workload::recipe(base, mesh, configuration.mode, batch_size(base, configuration), length)
}

impl Measurement {
    fn of(steps: &[Step], batch_size: usize) -> Self {
        let seconds: Vec<f64> = steps.iter().map(|step| step.time.as_secs_f64()).collect();
        Self {
            rate: batch_size as f64 / median(&seconds),
            exchange_share: share(steps, &[Phase::Exchange, Phase::Reduce]),
            wait_share: share(steps, &[Phase::Wait]),
        }
    }
}

/// The share of all ranks' time that was spent in some phases.
fn share(steps: &[Step], phases: &[Phase]) -> f64 {
    let ranks = || steps.iter().flat_map(|step| &step.ranks);
    let total: f64 = ranks().map(|rank| rank.phases.total().as_secs_f64()).sum();
    let spent =
        |rank: &crate::events::RankStep| phases.iter().map(|&phase| rank.phases.get(phase).as_secs_f64()).sum::<f64>();
    ranks().map(spent).sum::<f64>() / total
}

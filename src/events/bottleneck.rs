//! What bounds a run: the data, the compute, the link, or one device that the others wait for.

use super::RankStep;
use crate::engine::phases::{Phase, Phases};
use std::fmt;
use std::time::Duration;

/// From this share of their time on that the others wait for one device, it is that device that bounds the run: below, it
/// is the jitter that no run is without.
const STRAGGLES: f64 = 0.10;

/// What bounded an epoch's training.
#[derive(Clone, Debug, PartialEq)]
pub struct Bottleneck {
    /// The epoch, from 1.
    pub epoch: u64,
    /// What it was.
    pub bound: Bound,
    /// Where the time went: of the device that the others waited for, if that is the bound, else of all together.
    pub shares: Shares,
    /// How many devices there are.
    pub devices: usize,
}

/// What bounds a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// The loader, or putting batches on the devices.
    Data,
    /// The layers and the update.
    Compute,
    /// What travels between the devices and is not hidden behind compute.
    Link,
    /// One device, which is slower than the others or has more to do.
    Peer {
        /// Its name.
        device: String,
        /// The share of their time that the others waited for it.
        share: f64,
    },
}

/// Shares of the time of training steps; they add up to one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Taking batches from the loader and putting them on the device.
    pub data: f64,
    /// Forward, backward and update.
    pub compute: f64,
    /// Exchanges and reductions, as far as they are not hidden behind compute.
    pub link: f64,
    /// Waiting for other devices.
    pub waiting: f64,
}

/// The time of a device in training steps, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceTime {
    /// Where it went.
    pub phases: Phases,
    /// How long the other devices waited for this one.
    pub awaited: Duration,
}

impl Bound {
    /// What it is called: the device by its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Data => "data",
            Self::Compute => "compute",
            Self::Link => "the link",
            Self::Peer { device, .. } => device,
        }
    }
}

impl DeviceTime {
    /// Adds a step.
    pub fn add(&mut self, step: &RankStep) {
        self.phases += step.phases;
        self.awaited += step.awaited;
    }
}

impl Shares {
    fn of(phases: &Phases) -> Self {
        let total = phases.total().as_secs_f64();
        let share = |which: &[Phase]| which.iter().map(|&phase| phases.get(phase).as_secs_f64()).sum::<f64>() / total;
        Self {
            data: share(&[Phase::Data]),
            compute: share(&[Phase::Forward, Phase::Backward, Phase::Optimizer]),
            link: share(&[Phase::Exchange, Phase::Reduce]),
            waiting: share(&[Phase::Wait]),
        }
    }
}

impl Bottleneck {
    /// What bounded an epoch, from the time of each device in its steps; `None` if there was no step.
    ///
    /// A device straggles if the others waited for it more than it waited itself: it did not merely pass on what it waited
    /// for. Of several the one with the greatest difference is named. If none straggles, the largest of data, compute
    /// and link is the bound.
    pub fn of(epoch: u64, names: &[String], times: &[DeviceTime]) -> Option<Self> {
        let devices = times.len();
        let mut all = Phases::default();
        times.iter().for_each(|device| all += device.phases);
        if all.total().is_zero() {
            return None;
        }
        let surplus = |device: &DeviceTime| device.awaited.as_secs_f64() - device.phases.get(Phase::Wait).as_secs_f64();
        let awaited = (0..devices).max_by(|&one, &other| surplus(&times[one]).total_cmp(&surplus(&times[other])))?;
        let of_others = all.total().saturating_sub(times[awaited].phases.total()).as_secs_f64();
        let share = times[awaited].awaited.as_secs_f64() / of_others;
        if surplus(&times[awaited]) > 0.0 && share >= STRAGGLES {
            let bound = Bound::Peer { device: names.get(awaited)?.clone(), share };
            return Some(Self { epoch, bound, shares: Shares::of(&times[awaited].phases), devices });
        }
        let shares = Shares::of(&all);
        let bound = if shares.compute >= shares.data.max(shares.link) {
            Bound::Compute
        } else if shares.data >= shares.link {
            Bound::Data
        } else {
            Bound::Link
        };
        Some(Self { epoch, bound, shares, devices })
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shares { data, compute, link, waiting } = self.shares;
        let mut parts = vec![("compute", compute), ("exchange", link), ("waiting", waiting), ("data", data)];
        if self.devices == 1 {
            parts.retain(|(name, _)| !matches!(*name, "exchange" | "waiting"));
        }
        let (share, left_out) = match self.bound {
            Bound::Data => (data, "data"),
            Bound::Compute => (compute, "compute"),
            Bound::Link => (link, "exchange"),
            Bound::Peer { share, .. } => (share, ""),
        };
        let rest = parts.iter().filter(|(name, _)| *name != left_out);
        let rest: Vec<String> = rest.map(|(name, share)| format!("{name} {:.0} %", 100.0 * share)).collect();
        let (bound, share, rest) = (self.bound.name(), 100.0 * share, rest.join(", "));
        match self.bound {
            Bound::Peer { .. } => write!(
                formatter,
                "bound by {bound}, for which the others waited {share:.0} % of the step; its own: {rest}"
            ),
            _ => write!(formatter, "bound by {bound} ({share:.0} % of the step); {rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of data, forward, exchange, wait, backward, reduce and optimizer, and what the others waited for it.
    fn device(seconds: [f64; Phase::ALL.len()], awaited: f64) -> DeviceTime {
        DeviceTime { phases: Phases::from_seconds(seconds), awaited: Duration::from_secs_f64(awaited) }
    }

    fn line(devices: &[DeviceTime]) -> String {
        let names: Vec<String> = (0..devices.len()).map(|rank| format!("cpu:{rank}")).collect();
        Bottleneck::of(3, &names, devices).unwrap().to_string()
    }

    #[test]
    fn the_largest_share_bounds_devices_that_keep_step() {
        let even = |seconds| [device(seconds, 2.0), device(seconds, 2.0)];
        assert_eq!(
            line(&even([1.0, 30.0, 3.0, 2.0, 60.0, 1.0, 3.0])),
            "bound by compute (93 % of the step); exchange 4 %, waiting 2 %, data 1 %"
        );
        assert_eq!(
            line(&even([58.0, 10.0, 4.0, 2.0, 20.0, 1.0, 5.0])),
            "bound by data (58 % of the step); compute 35 %, exchange 5 %, waiting 2 %"
        );
        assert_eq!(
            line(&even([8.0, 10.0, 24.0, 2.0, 20.0, 31.0, 5.0])),
            "bound by the link (55 % of the step); compute 35 %, waiting 2 %, data 8 %"
        );
        let alone = [device([5.0, 30.0, 0.0, 0.0, 60.0, 0.0, 5.0], 0.0)];
        assert_eq!(line(&alone), "bound by compute (95 % of the step); data 5 %");
    }

    #[test]
    fn a_device_that_the_others_wait_for_is_named() {
        let slow = device([1.0, 30.0, 3.0, 2.0, 60.0, 1.0, 3.0], 82.0);
        let quick = device([1.0, 14.0, 3.0, 41.0, 37.0, 1.0, 3.0], 2.0);
        assert_eq!(
            line(&[quick, slow, quick]),
            "bound by cpu:1, for which the others waited 41 % of the step; its own: compute 93 %, exchange 4 %, \
             waiting 2 %, data 1 %"
        );
    }

    /// Of a chain, in which the first waits for the second and the second for the third, the end is named.
    #[test]
    fn a_device_that_passes_on_what_it_waits_for_is_not_named() {
        let waits = device([0.0, 60.0, 0.0, 40.0, 0.0, 0.0, 0.0], 0.0);
        let passes_on = device([0.0, 60.0, 0.0, 40.0, 0.0, 0.0, 0.0], 40.0);
        let slow = device([0.0, 100.0, 0.0, 0.0, 0.0, 0.0, 0.0], 40.0);
        assert!(line(&[waits, passes_on, slow]).starts_with("bound by cpu:2, "));
        // Ranks that wait for each other in turn: none of them is to blame.
        let jitters = device([0.0, 60.0, 0.0, 40.0, 0.0, 0.0, 0.0], 40.0);
        assert_eq!(line(&[jitters; 2]), "bound by compute (60 % of the step); exchange 0 %, waiting 40 %, data 0 %");
        // Below a tenth it is jitter too.
        let [late, early] =
            [device([0.0, 99.0, 0.0, 1.0, 0.0, 0.0, 0.0], 8.0), device([0.0, 92.0, 0.0, 8.0, 0.0, 0.0, 0.0], 1.0)];
        assert!(line(&[late, early]).starts_with("bound by compute (96 % of the step)"), "{}", line(&[late, early]));
    }

    #[test]
    fn without_a_step_nothing_is_said() {
        assert_eq!(Bottleneck::of(1, &["cpu:0".into()], &[DeviceTime::default()]), None);
        assert_eq!(Bottleneck::of(1, &[], &[]), None);
    }
}

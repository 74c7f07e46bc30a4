//! Times, medians and spreads: on a machine that does other things too, a mean tells of the other things.

use crate::error::Result;
use crate::torch::device::synchronize;
use std::time::Instant;
use tch::Device;

/// The seconds that a device takes for some work, from when it has done all before to when it has done this.
///
/// # Errors
/// The work's, and what went wrong on the device.
pub fn timed<T>(device: Device, work: impl FnOnce() -> Result<T>) -> Result<f64> {
    synchronize(device)?;
    let begin = Instant::now();
    drop(work()?);
    synchronize(device)?;
    Ok(begin.elapsed().as_secs_f64())
}

/// What repeated measurements come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the measurements are below it.
    pub median: f64,
    /// A quarter of the measurements are below it.
    pub low: f64,
    /// A quarter of the measurements are above it.
    pub high: f64,
}

impl Spread {
    /// The quartiles of some measurements; NaN for none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * sorted.len().saturating_sub(1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            let value = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
            value(below) + (value(above) - value(below)) * (place - place.floor())
        };
        Self { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

/// The median of some measurements; NaN for none.
pub fn median(values: &[f64]) -> f64 {
    Spread::of(values).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_their_neighbours() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Spread { median: 2.5, low: 1.75, high: 3.25 });
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, low: 7.0, high: 7.0 });
        assert!(median(&[]).is_nan());
    }
}

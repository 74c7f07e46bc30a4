//! What each layer costs on one rank, for `mpt bench step`.

use crate::error::Result;
use crate::model::LayerId;
use crate::torch::device::synchronize;
use std::time::{Duration, Instant};
use tch::Device;

/// What a layer is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Its output.
    Forward,
    /// The gradients of its inputs and of its weights.
    Backward,
}

/// The time spent in each layer; exchanges are not part of a layer. A GPU computes later than it is asked to: it is waited
/// for before and after each layer, so that while a profile is taken layers are timed one by one, and nothing overlaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    device: Device,
    /// Forward, by layer.
    pub forward: Vec<Duration>,
    /// Backward, by layer.
    pub backward: Vec<Duration>,
}

impl Profile {
    /// Nothing spent yet in any of so many layers on a device.
    pub fn new(layers: usize, device: Device) -> Self {
        Self { device, forward: vec![Duration::ZERO; layers], backward: vec![Duration::ZERO; layers] }
    }

    /// Now, when the device has done all that it was asked for.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn now(&self) -> Result<Instant> {
        synchronize(self.device)?;
        Ok(Instant::now())
    }

    /// Counts what has passed since `begin` for a pass of a layer.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn count(&mut self, pass: Pass, layer: LayerId, begin: Instant) -> Result<()> {
        let spent = self.now()?.duration_since(begin);
        match pass {
            Pass::Forward => self.forward[layer] += spent,
            Pass::Backward => self.backward[layer] += spent,
        }
        Ok(())
    }
}

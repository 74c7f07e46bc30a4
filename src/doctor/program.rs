//! mpt itself.

use super::{Machine, gpus, processor};
use crate::recipe::Precision;
use serde::Serialize;

/// What this program is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// Its version.
    pub version: &'static str,
    /// What it would train on without being told otherwise: `cuda`, `cpu`, or `simulated` GPUs.
    pub device: &'static str,
    /// What `--precision auto` means there.
    pub precision: &'static str,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let driver = machine.cuda.driver.as_ref();
    let device = match driver {
        Some(driver) if driver.simulated => "simulated",
        Some(driver) if !driver.gpus.is_empty() => "cuda",
        _ => "cpu",
    };
    let fast_bf16 = match driver.filter(|_| device == "cuda").and_then(|driver| driver.gpus.first()) {
        Some(gpu) => gpus::computes_bf16(gpu),
        None => processor::find(machine).fast_bf16,
    };
    let precision = if fast_bf16 { Precision::Bf16 } else { Precision::Fp32 };
    Facts { version: env!("CARGO_PKG_VERSION"), device, precision: precision.name() }
}

#![no_main]
//! libFuzzer's target for the entry `model`.

use entries::meter::Meter;
use entries::model::MODEL;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|bytes: &[u8]| (MODEL.run)(bytes));

#![no_main]
//! libFuzzer's target for the entry `state`.

use entries::checkpoint::STATE;
use entries::meter::Meter;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|bytes: &[u8]| (STATE.run)(bytes));

#![no_main]
//! libFuzzer's target for the entry `pack`.

use entries::meter::Meter;
use entries::pack::PACK;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|bytes: &[u8]| (PACK.run)(bytes));

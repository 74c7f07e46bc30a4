#![no_main]
//! libFuzzer's target for the entry `record`.

use entries::meter::Meter;
use entries::record::RECORD;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|bytes: &[u8]| (RECORD.run)(bytes));

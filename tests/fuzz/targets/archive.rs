#![no_main]
//! libFuzzer's target for the entry `archive`.

use entries::archive::ARCHIVE;
use entries::meter::Meter;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|bytes: &[u8]| (ARCHIVE.run)(bytes));

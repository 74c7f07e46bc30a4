#![no_main]
//! libFuzzer's target for the entry `picture`.

use entries::meter::Meter;
use entries::picture::PICTURE;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|bytes: &[u8]| (PICTURE.run)(bytes));

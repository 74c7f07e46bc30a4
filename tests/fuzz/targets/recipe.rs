#![no_main]
//! libFuzzer's target for the entry `recipe`.

use entries::meter::Meter;
use entries::recipe::RECIPE;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|bytes: &[u8]| (RECIPE.run)(bytes));

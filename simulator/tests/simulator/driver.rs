//! The driver's rules.

use crate::program::Program;
use crate::world::{World, rank, this_test};

#[test]
fn values_survive_the_way_to_the_device_and_back() {
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    let program = Program::new(0, 1);
    let values: Vec<f32> = (0..3_000_000).map(|number| number as f32).collect();
    let buffer = program.filled(&values);
    assert_eq!(program.download::<f32>(buffer), values);
}

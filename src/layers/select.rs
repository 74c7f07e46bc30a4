//! Picking channels out of a tensor, and putting them back: dimension 1 of `[N, C, ...]`.

use crate::error::Result;
use crate::model::Channels;
use tch::Tensor;

/// The channels `positions` of a tensor: a view where they are one range or none, else a copy.
///
/// # Errors
/// What libtorch reports, as for positions outside the tensor.
pub fn select(tensor: &Tensor, positions: &Channels) -> Result<Tensor> {
    let parts = positions
        .ranges()
        .map(|range| tensor.f_narrow(1, range.start as i64, range.len() as i64))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(match &parts[..] {
        [] => tensor.f_narrow(1, 0, 0)?,
        [part] => part.shallow_clone(),
        _ => Tensor::f_cat(&parts, 1)?,
    })
}

/// Adds `part`, which holds the channels `positions` in ascending order, to those channels of `tensor`.
///
/// # Errors
/// What libtorch reports, as for shapes that do not fit.
pub fn place(tensor: &Tensor, positions: &Channels, part: &Tensor) -> Result<()> {
    let mut from = 0;
    for range in positions.ranges() {
        let length = range.len() as i64;
        let mut target = tensor.f_narrow(1, range.start as i64, length)?;
        let _ = target.f_add_(&part.f_narrow(1, from, length)?)?;
        from += length;
    }
    Ok(())
}

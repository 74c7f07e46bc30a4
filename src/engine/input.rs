//! A batch on its way from the loader to a device.

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::model::{LayerId, Shape};
use crate::torch::channels_last;
use crate::torch::device::upload;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// A rank's share of a batch on its device.
pub struct DeviceBatch {
    /// `[N, C, H, W]` in the size that the network reads.
    pub image: Tensor,
    /// `[N]`.
    pub labels: Tensor,
    /// For each dropout layer, `[N, F]` of 0 and 1.
    pub masks: BTreeMap<LayerId, Tensor>,
    /// The examples of the whole batch, over all ranks.
    pub global_examples: usize,
}

impl DeviceBatch {
    /// Puts a batch on the device, enlarged or reduced (bilinear, pixel centres
    /// aligned) to what the network reads. This happens here and not in the loader: small images travel faster.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(batch: &Batch, wanted: Shape, kind: Kind, device: Device) -> Result<Self> {
        let [channels, height, width] = batch.shape.map(|size| size as i64);
        let examples = batch.labels.len() as i64;
        let pixels = Tensor::from_slice(&batch.pixels).f_view([examples, channels, height, width])?;
        let mut image = upload(&pixels, device)?.f_to_kind(kind)?;
        let (wanted_height, wanted_width) = wanted.pixels.map_or((height, width), |(h, w)| (h as i64, w as i64));
        if examples > 0 {
            if (wanted_height, wanted_width) != (height, width) {
                image = resized(&image, [wanted_height, wanted_width])?;
            }
            image = channels_last(&image)?;
        }
        let masks = batch.masks.iter().map(|mask| {
            let keep = Tensor::from_slice(&mask.keep).f_view([examples, mask.features as i64])?;
            Ok((mask.layer as LayerId, upload(&keep, device)?))
        });
        Ok(Self {
            image,
            labels: upload(&Tensor::from_slice(&batch.labels), device)?,
            masks: masks.collect::<Result<_>>()?,
            global_examples: batch.global_examples,
        })
    }

    /// The examples of this share.
    pub fn examples(&self) -> usize {
        self.labels.numel()
    }
}

/// `[N, C, H, W]` to `[N, C, H', W']`, bilinear with pixel centres aligned, as two matrix products: each axis is a
/// linear map of its own, and products run several times faster than libtorch's loops over pixels.
fn resized(image: &Tensor, [height, width]: [i64; 2]) -> Result<Tensor> {
    let size = image.size();
    let matrix = |from, to| Ok::<_, Error>(interpolation(from, to, image.kind())?.f_to_device(image.device())?);
    let (down, across) = (matrix(size[2], height)?, matrix(size[3], width)?);
    Ok(down.f_tr()?.f_matmul(&image.f_matmul(&across)?)?)
}

/// `[from, to]`: the matrix of linear interpolation, which is what it makes of the identity.
fn interpolation(from: i64, to: i64, kind: Kind) -> Result<Tensor> {
    let identity = Tensor::f_eye(from, (Kind::Double, Device::Cpu))?.f_unsqueeze(0)?;
    Ok(identity.f_upsample_linear1d([to], false, None::<f64>)?.f_squeeze_dim(0)?.f_to_kind(kind)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_is_bilinear_interpolation() {
        let values = Tensor::arange(2 * 3 * 5 * 7, (Kind::Double, Device::Cpu)).f_sin().unwrap();
        let image = values.view([2, 3, 5, 7]);
        for size in [[13, 11], [40, 56], [3, 4], [5, 9]] {
            let expected = image.upsample_bilinear2d(size, false, None::<f64>, None::<f64>);
            let apart = (resized(&image, size).unwrap() - expected).abs().max().double_value(&[]);
            assert!(apart < 1e-14, "{size:?}: {apart}");
        }
    }
}

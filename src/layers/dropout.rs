//! Dropout with masks from outside: the loader draws them by the global index of example and feature, so that any
//! split of a layer drops the same features.

use super::{Context, Layer, select};
use crate::error::{Error, Result};
use crate::model::{Channels, LayerId};
use tch::Tensor;

/// Drops features in training and scales the rest by `1 / (1 - probability)`; does nothing in evaluation.
pub struct Dropout {
    /// The layer whose mask is used.
    pub layer: LayerId,
    /// The probability of dropping a feature.
    pub probability: f64,
    /// The features that this device holds, as positions in the mask.
    pub features: Channels,
    /// The scaled mask, in the activation's shape, kept for the backward pass.
    pub saved: Option<Tensor>,
}

impl Layer for Dropout {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        if !context.training {
            return Ok(inputs[0].shallow_clone());
        }
        let mask =
            context.masks.get(&self.layer).ok_or_else(|| Error::failed("the batch has no mask for a dropout layer"))?;
        let held = select(mask, &self.features)?.f_reshape(inputs[0].size())?;
        let scaled = held.f_to_kind(inputs[0].kind())?.f_mul_scalar(1.0 / (1.0 - self.probability))?;
        let output = inputs[0].f_mul(&scaled)?;
        self.saved = Some(scaled);
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let mask = super::kept(&mut self.saved)?;
        Ok(vec![Some(gradient.f_mul(&mask)?)])
    }
}

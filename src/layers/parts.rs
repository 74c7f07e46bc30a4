//! A dense layer whose input comes in parts of its channels: the sum of a layer for each part, whose weights are columns of
//! the whole ones. So the parts need not lie side by side in memory, in neither direction, and what the own part gives is
//! computed while the others are on their way.

use super::{Context, Layer};
use crate::error::Result;
use std::slice::from_ref;
use tch::Tensor;

/// The sum of layers that each read a part of the input, which are given, and whose gradients are taken, in this order.
pub struct Parts {
    /// The layer of each part; the one of the own part has the bias.
    pub layers: Vec<Box<dyn Layer>>,
    /// The place of the part that is there before the others.
    pub own: usize,
    /// What the own part gives, from [`Layer::begin`] on until the others have come.
    pub begun: Option<Tensor>,
}

impl Layer for Parts {
    fn begin(&mut self, own: &Tensor, context: &Context) -> Result<()> {
        self.begun = Some(self.layers[self.own].forward(from_ref(own), context)?);
        Ok(())
    }

    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let mut sum = match self.begun.take() {
            Some(begun) => begun,
            None => self.layers[self.own].forward(from_ref(&inputs[self.own]), context)?,
        };
        for (part, (layer, input)) in self.layers.iter_mut().zip(inputs).enumerate() {
            if part != self.own {
                // Nobody but this layer knows the sum yet.
                sum = sum.f_add_(&layer.forward(from_ref(input), context)?)?;
            }
        }
        Ok(sum)
    }

    fn backward(&mut self, gradient: &Tensor, context: &Context) -> Result<Vec<Option<Tensor>>> {
        let parts = self.layers.iter_mut().map(|layer| layer.backward(gradient, context));
        Ok(parts.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn backward_parameters(&mut self, gradient: &Tensor) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.backward_parameters(gradient))
    }
}

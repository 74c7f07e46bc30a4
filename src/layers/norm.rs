//! Local response normalisation, across channels and within one. Both keep their input alone: to sum its squares once more
//! takes less than to read what was kept of them.

use super::{Context, Layer, kept};
use crate::error::Result;
use crate::model::kind::Norm;
use crate::torch::norm::{NormCall, NormRule, local_response_norm, local_response_norm_backward};
use tch::{Kind, Tensor};

/// Each value by the squares of the channels around its own, inside its group. A device that has a part of a group reads the
/// channels beside its own too, and gives each the gradient that its outputs bring.
pub struct LocalResponseNorm {
    /// The window of channels, and the function.
    pub norm: Norm,
    /// The parts of groups that are computed, in ascending order of their outputs, which they cover without gaps.
    pub calls: Vec<NormCall>,
    /// The input, kept for the backward pass.
    pub saved: Option<Tensor>,
}

impl LocalResponseNorm {
    fn rule(&self) -> NormRule {
        let Norm { size, alpha, beta, k } = self.norm;
        NormRule { size: size as i64, weight: alpha / size as f64, beta, k }
    }
}

impl Layer for LocalResponseNorm {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        self.saved = context.training.then(|| inputs[0].shallow_clone());
        local_response_norm(&inputs[0], &self.calls, self.rule())
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let input = kept(&mut self.saved)?;
        Ok(vec![Some(local_response_norm_backward(gradient, &input, &self.calls, self.rule())?)])
    }
}

/// Each value by the squares of the pixels around its own, in its channel. bf16 is computed in fp32.
pub struct SameMapNorm {
    /// The window of pixels, of an odd side, and the function.
    pub norm: Norm,
    /// The input, kept for the backward pass.
    pub saved: Option<Tensor>,
}

impl SameMapNorm {
    /// The mean over the window around each pixel, in which what lies outside of the image counts as zeros.
    fn mean(&self, values: &Tensor) -> Result<Tensor> {
        let size = self.norm.size as i64;
        Ok(values.f_avg_pool2d([size; 2], [1; 2], [size / 2; 2], false, true, None::<i64>)?)
    }

    fn scale(&self, values: &Tensor) -> Result<Tensor> {
        Ok(self.mean(&values.f_square()?)?.f_mul_scalar_(self.norm.alpha)?.f_add_scalar_(self.norm.k)?)
    }
}

impl Layer for SameMapNorm {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let values = wide(&inputs[0])?;
        let factor = self.scale(&values)?.f_pow_tensor_scalar(-self.norm.beta)?;
        self.saved = context.training.then(|| inputs[0].shallow_clone());
        Ok(values.f_mul(&factor)?.f_to_kind(inputs[0].kind())?)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let input = kept(&mut self.saved)?;
        let values = wide(&input)?;
        let scale = self.scale(&values)?;
        let own = wide(gradient)?.f_mul(&scale.f_pow_tensor_scalar(-self.norm.beta)?)?;
        // A window that holds a pixel is one that lies around a pixel of that one's window.
        let total = self.mean(&own.f_mul(&values)?.f_div(&scale)?)?;
        let twice = 2.0 * self.norm.alpha * self.norm.beta;
        let of_input = own.f_sub(&values.f_mul(&total)?.f_mul_scalar_(twice)?)?;
        Ok(vec![Some(of_input.f_to_kind(input.kind())?)])
    }
}

fn wide(tensor: &Tensor) -> Result<Tensor> {
    Ok(if tensor.kind() == Kind::BFloat16 { tensor.f_to_kind(Kind::Float)? } else { tensor.shallow_clone() })
}

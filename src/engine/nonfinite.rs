//! Steps whose numbers are infinite or not numbers: where the first of these came up.

use crate::error::Result;
use crate::model::{ActivationId, LayerId, Model};
use tch::{Kind, Tensor};

/// Where the numbers of a step first were not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In this activation, forward. That of the loss is the loss.
    Activation(ActivationId),
    /// In the gradients of the weights of this layer: of those that have such gradients the backward pass comes to it first.
    Gradient(LayerId),
}

impl Origin {
    /// In words, as the end of `the first numbers that are not finite are`.
    pub fn describe(self, model: &Model) -> String {
        let name = |layer: LayerId| &model.layers[layer].name;
        match self {
            Self::Activation(0) => "in the images".to_owned(),
            Self::Activation(activation) if activation == model.layers.len() => {
                format!("the loss of layer {}", name(activation - 1))
            }
            Self::Activation(activation) => format!("in the output of layer {}", name(activation - 1)),
            Self::Gradient(layer) => format!("in the gradient of layer {}", name(layer)),
        }
    }
}

/// Whether every value is finite. Sums carry on what is not, and are infinite themselves only where the values are all but that.
///
/// # Errors
/// What libtorch reports.
pub fn is_finite(tensor: &Tensor) -> Result<bool> {
    let kind = if tensor.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    Ok(tensor.f_sum(kind)?.f_double_value(&[])?.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn one_value_is_enough() {
        for kind in [Kind::BFloat16, Kind::Float, Kind::Double] {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let values = Tensor::ones([3, 1000], (kind, Device::Cpu));
                assert!(is_finite(&values).unwrap());
                let _ = values.narrow(0, 1, 1).narrow(1, 77, 1).fill_(value);
                assert!(!is_finite(&values).unwrap(), "{value} of {kind:?}");
            }
            let both = Tensor::from_slice(&[f64::INFINITY, f64::NEG_INFINITY]).to_kind(kind);
            assert!(!is_finite(&both).unwrap());
            assert!(is_finite(&Tensor::zeros([0], (kind, Device::Cpu))).unwrap());
        }
    }
}

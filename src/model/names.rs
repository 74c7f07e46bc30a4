//! What parameters are called in files of weights.

use super::cost::{self, parameters};
use super::{Layer, LayerId, Model};
use std::fmt;

/// How the parameters of a model are named. (The relation to layers is the same in the model as written and with its
/// layers in the cheapest order: no layer with weights changes its place.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By the layer's name: `conv1.weight`. PyTorch forms the same from the names of modules.
    Layers,
    /// By the layer's place, from 0: `0.weight`, as PyTorch's nn.Sequential of all layers but the loss does.
    Sequential,
}

impl Naming {
    /// The names of all parameters, in the model's order.
    pub fn of(self, model: &Model) -> Vec<String> {
        let of_layer = |layer: LayerId| {
            parameters(model, layer).into_iter().map(move |parameter| match self {
                Self::Layers => cost::parameter_name(model, layer, parameter.role),
                Self::Sequential => format!("{layer}.{}", parameter.role.name()),
            })
        };
        (0..model.layers.len()).flat_map(of_layer).collect()
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Layers => "the layers' names",
            Self::Sequential => "the numbers of an nn.Sequential",
        })
    }
}

/// The first layer that reads anything else than the layer before it; `None` where the model is a sequence, as
/// nn.Sequential is.
pub fn first_branch(model: &Model) -> Option<&Layer> {
    model.layers.iter().enumerate().find(|(place, layer)| layer.inputs != [*place]).map(|(_, layer)| layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse::Edits;
    use crate::model::rewrite::relu_after_pool;
    use crate::model::shipped;

    #[test]
    fn a_sequence_is_numbered_as_pytorch_does() {
        let written = shipped::load("alexnet", &Edits::default()).unwrap();
        let weights = |model: &Model| -> Vec<String> {
            let names = Naming::Sequential.of(model);
            names.iter().filter_map(|name| name.strip_suffix(".weight").map(str::to_owned)).collect()
        };
        assert_eq!(weights(&written), ["0", "3", "6", "8", "10", "14", "17", "20"]);
        assert_eq!(weights(&relu_after_pool(&written)), weights(&written));
        assert_eq!(Naming::Layers.of(&written)[..2], ["conv1.weight", "conv1.bias"]);
        assert!(first_branch(&written).is_none() && first_branch(&relu_after_pool(&written)).is_none());
    }

    #[test]
    fn a_branch_is_found() {
        let branch = |name: &str| {
            let model = shipped::load(name, &Edits::default()).unwrap();
            first_branch(&model).map(|layer| layer.name.clone())
        };
        assert_eq!(branch("tiny-concat").as_deref(), Some("wide"));
        assert_eq!(branch("tiny-residual").as_deref(), Some("shortcut"));
    }
}

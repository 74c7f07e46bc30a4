//! The stages of a plan: the layers that a picture shows as one thing.

use crate::model::{ActivationId, LayerId, Model};
use crate::plan::{Plan, Read, Weights};
use std::ops::Range;

/// A layer that decides where channels lie, and those after it that follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The layers.
    pub layers: Range<LayerId>,
}

impl Stage {
    /// The layer that decides.
    pub fn first(&self) -> LayerId {
        self.layers.start
    }

    /// The activation that other stages read of it: none is read from its middle.
    pub fn gives(&self) -> ActivationId {
        self.layers.end
    }

    /// The layers' names.
    pub fn names<'m>(&self, model: &'m Model) -> Vec<&'m str> {
        model.layers[self.layers.clone()].iter().map(|layer| layer.name.as_str()).collect()
    }
}

/// The stages of a plan, in the model's order.
pub fn stages(plan: &Plan) -> Vec<Stage> {
    let count = plan.model.layers.len();
    let mut begins: Vec<LayerId> = (0..count).filter(|&layer| is_first(plan, layer)).collect();
    begins.push(count);
    begins.windows(2).map(|pair| Stage { layers: pair[0]..pair[1] }).collect()
}

/// A layer begins a stage if it has weights, or reads what travels, or if a branch begins or ends before it.
fn is_first(plan: &Plan, layer: LayerId) -> bool {
    let planned = &plan.layers[layer];
    let travels = planned.sources.iter().any(|source| matches!(source, Read::Exchanged(_)));
    let follows = plan.model.layers[layer].inputs == [layer] && plan.model.readers(layer).count() == 1;
    layer == 0 || planned.weights != Weights::None || travels || !follows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse::{Edits, parse};
    use crate::model::shipped;
    use crate::plan::{Mode, plan};

    fn of_model(model: &Model, mesh: &str) -> Vec<String> {
        let plan = plan(model, mesh.parse().unwrap(), Mode::ModelParallel).unwrap();
        stages(&plan).iter().map(|stage| stage.names(model).join(" ")).collect()
    }

    fn of(model: &str, mesh: &str) -> Vec<String> {
        of_model(&shipped::load(model, &Edits::default()).unwrap(), mesh)
    }

    #[test]
    fn a_stage_ends_where_others_read_it() {
        let text = "name = \"a\"\ninput = [1, 8, 8]\nlayers = [{ name = \"c\", kind = \"conv\", out = 4, kernel = 3 }, \
                    { name = \"r\", kind = \"relu\" }, { name = \"t\", kind = \"tanh\" }, \
                    { name = \"s\", kind = \"add\", inputs = [\"t\", \"r\"] }, { name = \"f\", kind = \"flatten\" }, \
                    { name = \"fc\", kind = \"linear\", out = 4 }, { name = \"loss\", kind = \"softmax-cross-entropy\" }]";
        let model = parse(text, "a", &Edits::default()).unwrap();
        assert_eq!(of_model(&model, "1x2"), ["c r", "t", "s f", "fc", "loss"]);
    }

    #[test]
    fn weights_exchanges_and_branches_begin_stages() {
        let alexnet =
            ["conv1 relu1 pool1", "conv2 relu2 pool2", "conv3 relu3", "conv4 relu4", "conv5 relu5 pool5 flatten"];
        assert_eq!(of("alexnet", "1x2")[..5], alexnet);
        assert_eq!(of("alexnet", "1x2")[5..], ["fc6 relu6 drop6", "fc7 relu7 drop7", "fc8", "loss"]);
        // What `relu` gives is read by three layers; `wide` does not read the layer before it.
        let concat = ["stem relu", "narrow", "wide", "join tanh drop", "mixed relu2 pool flatten", "fc", "loss"];
        assert_eq!(of("tiny-concat", "1x2"), concat);
        let residual =
            ["conv1 relu1", "conv2 relu2", "conv3", "shortcut", "add", "again relu3", "conv4 mean flatten", "loss"];
        assert_eq!(of("tiny-residual", "1x2"), residual);
    }
}

//! What a network *is*: named layers in order, each with its inputs. Pure data: no device and no tensor in it, and
//! nothing here knows that a network may be split.
//!
//! * [`kind`] the layer kinds and their settings
//! * [`parse`] reading a model from TOML
//! * [`base`] models that are another one but for a few layers
//! * [`shape`] the shape that each layer gives
//! * [`reads`] which input channels a range of output channels reads: the one relation that every split follows from
//! * [`cost`] parameters and multiply-accumulates
//! * [`names`] what parameters are called in files
//! * [`ranges`] sets of channels
//! * [`rewrite`] the same function, cheaper
//! * [`shipped`] the models that come with mpt
//! * [`towers`] the parts that a layer's kernels fall into

pub mod base;
pub mod cost;
pub mod initial;
pub mod kind;
pub mod names;
pub mod parse;
pub mod ranges;
pub mod reads;
pub mod rewrite;
pub mod shape;
pub mod shipped;
pub mod towers;

pub use initial::Initial;
pub use kind::Kind;
pub use ranges::Channels;
pub use shape::Shape;

use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// An activation of the network: `IMAGE` is the input image, `LayerId + 1` is what that layer gives.
pub type ActivationId = usize;
/// The position of a layer in the model.
pub type LayerId = usize;
/// The activation that is the input image.
pub const IMAGE: ActivationId = 0;

/// One layer: a name, what it computes, and which activations it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Unique in the model; parameters are called `NAME.weight` and `NAME.bias`.
    pub name: String,
    /// What it computes.
    pub kind: Kind,
    /// What it reads, in order: always activations before its own.
    pub inputs: Vec<ActivationId>,
    /// The shape of what it gives, per example.
    pub output: Shape,
}

/// A network: a directed acyclic graph of layers, kept in an order in which each layer comes after its inputs.
/// The last layer, and only it, is the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The name that run directories carry.
    pub name: String,
    /// The shape of one input image.
    pub input: Shape,
    /// The layers in order.
    pub layers: Vec<Layer>,
}

/// A layer before its shape is known: what a model file says of it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Unique name of the layer.
    pub name: String,
    /// What it computes.
    pub kind: Kind,
    /// Names of the layers it reads; empty: the layer before it (the image for the first).
    pub inputs: Vec<String>,
}

/// The most values that one parameter may have: what any machine could hold, and far from overflow.
const LARGEST_PARAMETER: usize = 1 << 36;
/// The most multiply-accumulates of a layer for one example: a thousand times what the largest networks do in all.
const MOST_WORK: usize = 1 << 44;
/// The most layers: plans are made by looking at all readers of each.
const MOST_LAYERS: usize = 4096;

/// The name under which layers read the input image.
pub const IMAGE_NAME: &str = "image";

impl Model {
    /// Builds the graph: resolves input names, infers every shape and checks that the network can be trained.
    ///
    /// # Errors
    /// Names the layer and what is wrong: two layers of one name, an input that does not come before its reader, an
    /// impossible shape (with both sizes), no loss at the end, an activation that nothing reads.
    pub fn new(name: &str, input: Shape, drafts: Vec<Draft>) -> Result<Self> {
        if drafts.len() > MOST_LAYERS {
            let count = drafts.len();
            return Err(Error::usage(format!(
                "model {name}: it has {count} layers; mpt lays out {MOST_LAYERS} at most"
            )));
        }
        let mut model = Self { name: name.to_owned(), input, layers: Vec::with_capacity(drafts.len()) };
        for draft in drafts {
            model.push(draft)?;
        }
        model.check_ends()?;
        Ok(model)
    }

    fn push(&mut self, draft: Draft) -> Result<()> {
        let context = format!("model {}: layer {}", self.name, draft.name);
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if draft.name.is_empty() || !draft.name.chars().all(safe) {
            let rule = "may hold only letters, digits, `-`, `_` and `.`, for it names parameters";
            return Err(Error::usage(format!("model {}: the layer name {:?} {rule}", self.name, draft.name)));
        }
        if draft.name == IMAGE_NAME || self.layers.iter().any(|layer| layer.name == draft.name) {
            return Err(Error::usage(format!("{context}: this name is taken already; every layer needs its own")));
        }
        let inputs = if draft.inputs.is_empty() {
            vec![self.layers.len()]
        } else {
            draft.inputs.iter().map(|input| self.resolve(input, &context)).collect::<Result<Vec<_>>>()?
        };
        let shapes: Vec<Shape> = inputs.iter().map(|&input| self.shape(input)).collect();
        let output =
            shape::output(&draft.kind, &shapes).map_err(|problem| Error::usage(format!("{context}: {problem}")))?;
        self.layers.push(Layer { name: draft.name, kind: draft.kind, inputs, output });
        for parameter in cost::parameters(self, self.layers.len() - 1) {
            let size = parameter.shape.iter().try_fold(1usize, |size, &side| size.checked_mul(side));
            let Some(size) = size.filter(|&size| size <= LARGEST_PARAMETER) else {
                let sentence = format!("{context}: its weights would be more than {LARGEST_PARAMETER} numbers");
                return Err(Error::usage(sentence));
            };
            if size.saturating_mul(output.area()) > MOST_WORK {
                let sentence = format!("{context}: an example would take more than {MOST_WORK} multiplications");
                return Err(Error::usage(sentence));
            }
        }
        Ok(())
    }

    fn resolve(&self, name: &str, context: &str) -> Result<ActivationId> {
        if name == IMAGE_NAME {
            return Ok(IMAGE);
        }
        match self.layers.iter().position(|layer| layer.name == name) {
            Some(layer) => Ok(layer + 1),
            None => {
                let known = std::iter::once(IMAGE_NAME).chain(self.layers.iter().map(|layer| layer.name.as_str()));
                let hint = crate::keys::suggestion(name, known);
                Err(Error::usage(format!("{context}: its input `{name}` is no layer before it{hint}")))
            }
        }
    }

    fn check_ends(&self) -> Result<()> {
        let fault = |problem: String| Err(Error::usage(format!("model {}: {problem}", self.name)));
        let Some((last, others)) = self.layers.split_last() else { return fault("it has no layers".into()) };
        if last.kind != Kind::SoftmaxCrossEntropy {
            return fault(format!(
                "the last layer, {}, must be of kind softmax-cross-entropy: that is the loss",
                last.name
            ));
        }
        if let Some(early) = others.iter().find(|layer| layer.kind == Kind::SoftmaxCrossEntropy) {
            return fault(format!(
                "layer {} is a loss and not the last layer; there is one loss, at the end",
                early.name
            ));
        }
        if !others.iter().any(|layer| layer.kind.has_weights()) {
            return fault("no layer has weights, so there is nothing to train".into());
        }
        let read: BTreeSet<ActivationId> = self.layers.iter().flat_map(|layer| layer.inputs.iter().copied()).collect();
        match (1..self.layers.len()).find(|activation| !read.contains(activation)) {
            Some(unread) => {
                fault(format!("nothing reads what layer {} gives; remove it or read it", self.layers[unread - 1].name))
            }
            None => Ok(()),
        }
    }

    /// The shape of an activation, per example.
    pub fn shape(&self, activation: ActivationId) -> Shape {
        match activation {
            IMAGE => self.input,
            layer => self.layers[layer - 1].output,
        }
    }

    /// The shapes that a layer reads.
    pub fn input_shapes(&self, layer: LayerId) -> Vec<Shape> {
        self.layers[layer].inputs.iter().map(|&input| self.shape(input)).collect()
    }

    /// The name of an activation: that of the layer that gives it, or `image`.
    pub fn activation_name(&self, activation: ActivationId) -> &str {
        match activation {
            IMAGE => IMAGE_NAME,
            layer => &self.layers[layer - 1].name,
        }
    }

    /// The layers that read an activation, in order.
    pub fn readers(&self, activation: ActivationId) -> impl Iterator<Item = LayerId> + '_ {
        (0..self.layers.len()).filter(move |&layer| self.layers[layer].inputs.contains(&activation))
    }

    /// The number of classes that the network tells apart: the features of the logits.
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |loss| self.shape(loss.inputs[0]).channels)
    }

    /// For each activation, whether a gradient has to reach it: whether a layer with weights lies at or before it.
    pub fn needs_gradient(&self) -> Vec<bool> {
        let mut needs = vec![false];
        for layer in &self.layers {
            needs.push(layer.kind.has_weights() || layer.inputs.iter().any(|&input| needs[input]));
        }
        needs
    }
}

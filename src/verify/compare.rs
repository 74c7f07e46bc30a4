//! How far two runs are apart: `|a - b| / |b|` per tensor, in 2-norms.

use super::Observed;
use crate::engine::recording::Quantity;
use crate::error::Result;
use crate::model::cost::Role;
use crate::model::{LayerId, Model};
use tch::{Kind, Tensor};

/// The distances of one layer's tensors; `None` where there is no such tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Of its output.
    pub output: Option<f64>,
    /// Of the gradient that its readers sent back to its output.
    pub output_gradient: Option<f64>,
    /// The larger one of its weight's and its bias's gradient.
    pub weight_gradient: Option<f64>,
    /// The larger one of its weight and its bias after the last step.
    pub weights: Option<f64>,
}

/// Two runs side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// One row a layer, in the model's order.
    pub layers: Vec<Row>,
    /// `|a - b| / |b|` of each step's mean loss.
    pub losses: Vec<f64>,
}

/// Something that differs by more than it may.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The layer that is at fault.
    pub layer: String,
    /// What of it differs.
    pub what: String,
    /// By how much.
    pub distance: f64,
}

/// `|a - b| / |b|` in 2-norms; 0 where both are zero, infinite where shapes or numbers are no match.
///
/// # Errors
/// What libtorch reports.
pub fn distance(found: &Tensor, expected: &Tensor) -> Result<f64> {
    if found.size() != expected.size() {
        return Ok(f64::INFINITY);
    }
    let (found, expected) = (found.f_to_kind(Kind::Double)?, expected.f_to_kind(Kind::Double)?);
    let apart = found.f_sub(&expected)?.f_norm()?.f_double_value(&[])?;
    let size = expected.f_norm()?.f_double_value(&[])?;
    Ok(ratio(apart, size))
}

/// `|apart| / |size|`: 0 where nothing is apart, infinite where the numbers are none.
fn ratio(apart: f64, size: f64) -> f64 {
    let ratio = if apart == 0.0 { 0.0 } else { (apart / size).abs() };
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

impl Comparison {
    /// Compares the run `found` with the run `expected` of the same model.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn new(model: &Model, found: &Observed, expected: &Observed) -> Result<Self> {
        let quantity = |of: Quantity| match (found.quantities.get(&of), expected.quantities.get(&of)) {
            (Some(found), Some(expected)) => distance(found, expected).map(Some),
            (None, None) => Ok(None),
            // What only one of the runs has seen was not compared.
            _ => Ok(Some(f64::INFINITY)),
        };
        let parameter =
            |observed: fn(&Observed, LayerId, Role) -> Option<&Tensor>, layer: LayerId| -> Result<Option<f64>> {
                let mut largest: Option<f64> = None;
                for role in [Role::Weight, Role::Bias] {
                    if let Some(expected) = observed(expected, layer, role) {
                        let apart = match observed(found, layer, role) {
                            Some(found) => distance(found, expected)?,
                            None => f64::INFINITY,
                        };
                        largest = Some(largest.map_or(apart, |before| before.max(apart)));
                    }
                }
                Ok(largest)
            };
        let rows = (0..model.layers.len()).map(|layer| {
            Ok(Row {
                output: quantity(Quantity::Activation(layer + 1))?,
                output_gradient: quantity(Quantity::Gradient(layer + 1))?,
                weight_gradient: parameter(|run, layer, role| run.gradients.get(&(layer, role)), layer)?,
                weights: parameter(|run, layer, role| run.weights.get(&(layer, role)), layer)?,
            })
        });
        let layers = rows.collect::<Result<_>>()?;
        let losses = expected.outcomes.iter().enumerate().map(|(step, expected)| match found.outcomes.get(step) {
            Some(found) if found.examples == expected.examples => {
                ratio(found.loss() - expected.loss(), expected.loss())
            }
            _ => f64::INFINITY,
        });
        let losses = losses.collect();
        Ok(Self { layers, losses })
    }

    /// The largest distance of all.
    pub fn largest(&self) -> f64 {
        let tensors =
            self.layers.iter().flat_map(|row| [row.output, row.output_gradient, row.weight_gradient, row.weights]);
        tensors.flatten().chain(self.losses.iter().copied()).fold(0.0, f64::max)
    }

    /// The first thing, in the order in which a step computes, that is further apart than `bound`: outputs forward,
    /// then gradients backward, then weights and losses.
    pub fn first_difference(&self, model: &Model, bound: f64) -> Option<Difference> {
        let beyond = |distance: Option<f64>| distance.filter(|&distance| distance.is_nan() || distance > bound);
        let difference =
            |layer: &str, what: String, distance| Some(Difference { layer: layer.to_owned(), what, distance });
        for (layer, row) in model.layers.iter().zip(&self.layers) {
            if let Some(distance) = beyond(row.output) {
                return difference(&layer.name, "output".into(), distance);
            }
        }
        for (index, (layer, row)) in model.layers.iter().zip(&self.layers).enumerate().rev() {
            if let Some(distance) = beyond(row.output_gradient) {
                // What comes back wrong was sent back wrong by who read it.
                let readers: Vec<&str> =
                    model.readers(index + 1).map(|reader| model.layers[reader].name.as_str()).collect();
                return difference(&readers.join(", "), format!("gradient of its input, {}", layer.name), distance);
            }
            if let Some(distance) = beyond(row.weight_gradient) {
                return difference(&layer.name, "gradient of its weights".into(), distance);
            }
        }
        for (layer, row) in model.layers.iter().zip(&self.layers) {
            if let Some(distance) = beyond(row.weights) {
                return difference(&layer.name, "weights after the last step".into(), distance);
            }
        }
        let step = self.losses.iter().position(|&distance| beyond(Some(distance)).is_some())?;
        difference("loss", format!("loss of step {}", step + 1), self.losses[step])
    }
}

//! The gradients of activations in a backward pass, from where a layer leaves them to where the next one takes them.

use crate::comm::Ticket;
use crate::error::{Error, Result};
use crate::model::{ActivationId, LayerId};
use crate::plan::{ExchangeId, Plan, Read};
use tch::Tensor;

/// Gradients on their way back: those that have reached an activation, and those that wait for an exchange.
pub struct Gradients {
    activations: Vec<Option<Tensor>>,
    exchanged: Vec<Option<Tensor>>,
    /// The exchanges that have begun to bring their gradient home, with what there is to wait for.
    started: Vec<Option<Option<Ticket>>>,
}

impl Gradients {
    /// None yet.
    pub fn new(plan: &Plan) -> Self {
        let none = |count| (0..count).map(|_| None).collect();
        let exchanges = plan.exchanges.len();
        let started = (0..exchanges).map(|_| None).collect();
        Self { activations: none(plan.placements.len()), exchanged: none(exchanges), started }
    }

    /// Hands the gradients of a layer's inputs to where the inputs came from.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn deliver(&mut self, plan: &Plan, layer: LayerId, gradients: Vec<Option<Tensor>>) -> Result<()> {
        let inputs = plan.model.layers[layer].inputs.iter().zip(&plan.layers[layer].sources);
        for ((&input, source), gradient) in inputs.zip(gradients) {
            let Some(gradient) = gradient else { continue };
            match source {
                Read::Held => add(&mut self.activations[input], gradient)?,
                &Read::Exchanged(id) => add(&mut self.exchanged[id], gradient)?,
                // Only what lies before all weights is read in part without an exchange, and needs no gradient.
                Read::Part(_) => {}
            }
        }
        Ok(())
    }

    /// The gradient that waits to go home through an exchange.
    pub fn exchanged(&self, id: ExchangeId) -> Option<Tensor> {
        self.exchanged[id].as_ref().map(Tensor::shallow_clone)
    }

    /// Notes that the gradient of an exchange is on its way home, and what there is to wait for.
    pub fn under_way(&mut self, id: ExchangeId, ticket: Option<Ticket>) {
        self.started[id] = Some(ticket);
    }

    /// The gradients that have to come home to an activation through exchanges, the latest exchange first: every
    /// rank takes them in this order. With each, what there is to wait for if it is under way.
    pub fn take_exchanged(
        &mut self,
        plan: &Plan,
        activation: ActivationId,
    ) -> Vec<(ExchangeId, Tensor, Option<Option<Ticket>>)> {
        let ids = (0..plan.exchanges.len()).rev().filter(|&id| plan.exchanges[id].source == activation);
        ids.filter_map(|id| self.exchanged[id].take().map(|gradient| (id, gradient, self.started[id].take()))).collect()
    }

    /// Adds what came home through an exchange.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn add_to_activation(&mut self, activation: ActivationId, gradient: Tensor) -> Result<()> {
        add(&mut self.activations[activation], gradient)
    }

    /// The gradient of an activation, whole: every reader has had its turn.
    ///
    /// # Errors
    /// None has reached it: a fault of the plan.
    pub fn take(&mut self, activation: ActivationId) -> Result<Tensor> {
        self.activations[activation].take().ok_or_else(|| Error::failed("no gradient reached a layer that needs one"))
    }
}

/// Adds without writing to either tensor: other ranks may be reading them.
fn add(sum: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        None => gradient,
        Some(before) => before.f_add(&gradient)?,
    });
    Ok(())
}

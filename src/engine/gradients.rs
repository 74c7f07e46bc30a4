//! The gradients of activations in a backward pass, from where a layer leaves them to where the next one takes them.

use crate::comm::Ticket;
use crate::error::{Error, Result};
use crate::model::{ActivationId, LayerId};
use crate::plan::{ExchangeId, Plan, Read};
use tch::Tensor;

/// Gradients on their way back: those that have reached an activation, and those that wait for an exchange.
pub struct Gradients {
    activations: Vec<Option<Tensor>>,
    /// Of each exchange, the gradients of the tensors that it brought.
    exchanged: Vec<Option<Vec<Tensor>>>,
    /// The exchanges that have begun to bring their gradient home, with what there is to wait for.
    started: Vec<Option<Option<Ticket>>>,
}

impl Gradients {
    /// None yet.
    pub fn new(plan: &Plan) -> Self {
        let exchanges = plan.exchanges.len();
        Self { activations: none(plan.placements.len()), exchanged: none(exchanges), started: none(exchanges) }
    }

    /// Hands the gradients of a layer's inputs to where the inputs came from.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn deliver(&mut self, plan: &Plan, layer: LayerId, gradients: Vec<Option<Tensor>>) -> Result<()> {
        let mut gradients = gradients.into_iter();
        for (&input, source) in plan.model.layers[layer].inputs.iter().zip(&plan.layers[layer].sources) {
            match source {
                &Read::Exchanged(id) => {
                    let of_input: Option<Vec<Tensor>> = gradients.by_ref().take(plan.exchanges[id].tensors()).collect();
                    of_input.map_or(Ok(()), |of_input| add_each(&mut self.exchanged[id], of_input))?;
                }
                Read::Held => {
                    gradients.next().flatten().map_or(Ok(()), |one| add(&mut self.activations[input], one))?;
                }
                // Only what lies before all weights is read in part without an exchange, and needs no gradient.
                Read::Part(_) => drop(gradients.next()),
            }
        }
        Ok(())
    }

    /// The gradients that wait to go home through an exchange, of the tensors that it brought.
    pub fn exchanged(&self, id: ExchangeId) -> Option<Vec<Tensor>> {
        self.exchanged[id].as_ref().map(|gradients| gradients.iter().map(Tensor::shallow_clone).collect())
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
    ) -> Vec<(ExchangeId, Vec<Tensor>, Option<Option<Ticket>>)> {
        let ids = (0..plan.exchanges.len()).rev().filter(|&id| plan.exchanges[id].source == activation);
        ids.filter_map(|id| self.exchanged[id].take().map(|found| (id, found, self.started[id].take()))).collect()
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

fn none<T>(count: usize) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}

fn add_each(sums: &mut Option<Vec<Tensor>>, gradients: Vec<Tensor>) -> Result<()> {
    let mut all: Vec<_> = match sums.take() {
        Some(before) => before.into_iter().map(Some).collect(),
        None => none(gradients.len()),
    };
    all.iter_mut().zip(gradients).try_for_each(|(sum, gradient)| add(sum, gradient))?;
    *sums = all.into_iter().collect();
    Ok(())
}

/// Adds without writing to either tensor: other ranks may be reading them.
fn add(sum: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        None => gradient,
        Some(before) => before.f_add(&gradient)?,
    });
    Ok(())
}

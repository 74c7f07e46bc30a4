//! How activations and their gradients travel between the ranks of the model axis in a step: an exchange begins as soon as
//! what it brings is there, and is waited for where it is read.

use super::Rank;
use crate::comm::{Call, Stage, Ticket};
use crate::engine::exchange;
use crate::engine::gradients::Gradients;
use crate::engine::phases::Phase;
use crate::engine::recording::Quantity;
use crate::error::{Error, Result};
use crate::model::{ActivationId, LayerId};
use crate::plan::{ExchangeId, Operation};
use std::sync::Arc;
use tch::Tensor;

/// What an exchange of the forward pass has brought so far.
pub(super) enum Brought {
    Nothing,
    UnderWay(Ticket),
    Here(Vec<Tensor>),
}

impl Rank {
    /// Begins the exchanges of an activation that has just been computed.
    pub(super) fn start_exchanges(
        &mut self,
        activation: ActivationId,
        own: &Tensor,
        brought: &mut [Brought],
    ) -> Result<()> {
        if self.early_exchange {
            let plan = Arc::clone(&self.plan);
            for id in (0..plan.exchanges.len()).filter(|&id| plan.exchanges[id].source == activation) {
                brought[id] = Brought::UnderWay(self.start_exchange(id, own)?);
            }
        }
        Ok(())
    }

    /// Begins an exchange whose time has come, if it has not begun.
    pub(super) fn have_started(&mut self, id: ExchangeId, own: &Tensor, brought: &mut Brought) -> Result<()> {
        if let Brought::Nothing = brought {
            *brought = Brought::UnderWay(self.start_exchange(id, own)?);
        }
        Ok(())
    }

    /// What an exchange that has begun brings of an activation of which this rank owns `own`: all that the rank reads, or
    /// that in parts.
    pub(super) fn brought(&mut self, id: ExchangeId, own: &Tensor, brought: &mut Brought) -> Result<Vec<Tensor>> {
        let ticket = match std::mem::replace(brought, Brought::Nothing) {
            Brought::Here(tensors) => {
                let found = shallow(&tensors);
                *brought = Brought::Here(tensors);
                return Ok(found);
            }
            Brought::UnderWay(ticket) => ticket,
            Brought::Nothing => return Err(Error::failed("an exchange is waited for that has not begun")),
        };
        let plan = Arc::clone(&self.plan);
        let exchange = &plan.exchanges[id];
        let before = self.watch.enter(Phase::Exchange);
        let result = exchange::finish(exchange, self.groups.model.as_mut(), ticket, own);
        self.leave_collective(before);
        let result = result.map_err(|error| self.in_layer(exchange.reader, error))?;
        if exchange.operation == Operation::AllReduce {
            result.iter().for_each(|sum| self.record(Quantity::Activation(exchange.source), sum));
        }
        *brought = Brought::Here(shallow(&result));
        Ok(result)
    }

    fn start_exchange(&mut self, id: ExchangeId, own: &Tensor) -> Result<Ticket> {
        let plan = Arc::clone(&self.plan);
        let exchange = &plan.exchanges[id];
        let call = Call::new(&plan.model.layers[exchange.reader].name, Stage::Forward);
        let before = self.watch.enter(Phase::Exchange);
        let ticket = exchange::start(exchange, self.groups.model.as_mut(), &call, own);
        self.leave_collective(before);
        ticket.map_err(|error| self.in_layer(exchange.reader, error))
    }

    /// Begins to send back the gradients of what exchanges brought to `layer` and, before it in the backward pass, to all
    /// their other readers.
    pub(super) fn start_exchanges_back(&mut self, layer: LayerId, gradients: &mut Gradients) -> Result<()> {
        if self.early_exchange {
            let plan = Arc::clone(&self.plan);
            for id in (0..plan.exchanges.len()).rev().filter(|&id| plan.exchanges[id].reader == layer) {
                if let Some(gradient) = gradients.exchanged(id) {
                    let ticket = self.start_exchange_back(id, &gradient)?;
                    gradients.under_way(id, ticket);
                }
            }
        }
        Ok(())
    }

    /// The whole gradient of an activation, all of whose readers have had their turn: what they read through exchanges
    /// comes home, the latest exchange first on every rank.
    pub(super) fn come_home(&mut self, activation: ActivationId, gradients: &mut Gradients) -> Result<Tensor> {
        let plan = Arc::clone(&self.plan);
        for (id, exchanged, started) in gradients.take_exchanged(&plan, activation) {
            let ticket = match started {
                Some(ticket) => ticket,
                None => self.start_exchange_back(id, &exchanged)?,
            };
            let exchange = &plan.exchanges[id];
            let before = self.watch.enter(Phase::Exchange);
            let own = exchange::finish_back(exchange, self.groups.model.as_mut(), ticket, &exchanged);
            self.leave_collective(before);
            gradients.add_to_activation(activation, own.map_err(|error| self.in_layer(exchange.reader, error))?)?;
        }
        gradients.take(activation)
    }

    fn start_exchange_back(&mut self, id: ExchangeId, gradient: &[Tensor]) -> Result<Option<Ticket>> {
        let plan = Arc::clone(&self.plan);
        let exchange = &plan.exchanges[id];
        let call = Call::new(&plan.model.layers[exchange.reader].name, Stage::Backward);
        let before = self.watch.enter(Phase::Exchange);
        let ticket = exchange::start_back(exchange, self.groups.model.as_mut(), &call, gradient);
        self.leave_collective(before);
        ticket.map_err(|error| self.in_layer(exchange.reader, error))
    }
}

fn shallow(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

//! What a rank sends and receives in a training step, from the plan alone: what is counted must come to the same bytes.

use super::layout::Layout;
use crate::comm::{Operation, Traffic, Volume};
use crate::model::ranges::share;
use crate::plan::{self, Adjoint, ExchangeId, Plan};

/// What travels from and to a rank by one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The exchange that it is a part of; `None` for gradients and weights over the data axis.
    pub exchange: Option<ExchangeId>,
    /// The operation.
    pub operation: Operation,
    /// Its bytes: see [`Traffic`].
    pub volume: Volume,
}

/// What travels from and to a rank in a training step on `batch_size` examples, over all ranks, with values of so many
/// bytes: each exchange and its way back, then the gradients, then the weights.
pub fn of_step(plan: &Plan, rank: usize, batch_size: usize, value_bytes: usize) -> Vec<Flow> {
    let (model_rank, data_rank) = (plan.mesh.model_rank(rank), plan.mesh.data_rank(rank));
    let examples = share(batch_size, plan.mesh.data, data_rank).len();
    let mut flows = Vec::new();
    for (id, exchange) in plan.exchanges.iter().enumerate() {
        let (sent, sent_back) = exchange.values_sent(&plan.model, model_rank);
        let (received, received_back) = exchange.values_received(&plan.model, model_rank);
        let (forward, back) = operations(exchange.operation);
        let width = exchange.bytes_of_value(value_bytes);
        let mut push = |operation, sent: usize, received: usize| {
            let bytes = |values: usize| (values * examples * width) as u64;
            let volume = Volume { sent_bytes: bytes(sent), received_bytes: bytes(received) };
            flows.push(Flow { exchange: Some(id), operation, volume });
        };
        push(forward, sent, received);
        if exchange.adjoint == Adjoint::Sum {
            push(back, sent_back, received_back);
        }
    }
    if plan.mesh.data > 1 {
        // Each other rank of the axis gets its part of the gradients of this one, and gives its part of the weights.
        let part = Layout::new(plan, model_rank, 0).size / plan.mesh.data;
        let others = ((plan.mesh.data - 1) * part * value_bytes) as u64;
        let volume = Volume { sent_bytes: others, received_bytes: others };
        flows.push(Flow { exchange: None, operation: Operation::AllToAll, volume });
        flows.push(Flow { exchange: None, operation: Operation::AllGather, volume });
    }
    flows
}

/// All of some flows.
pub fn total(flows: &[Flow]) -> Traffic {
    let mut traffic = Traffic::default();
    flows.iter().for_each(|flow| traffic.count(flow.operation, flow.volume));
    traffic
}

/// How an exchange is carried out, forward and back.
fn operations(planned: plan::Operation) -> (Operation, Operation) {
    match planned {
        plan::Operation::AllGather => (Operation::AllGather, Operation::ReduceScatter),
        plan::Operation::SendReceive => (Operation::SendReceive, Operation::SendReceive),
        plan::Operation::AllReduce => (Operation::AllReduce, Operation::AllReduce),
    }
}

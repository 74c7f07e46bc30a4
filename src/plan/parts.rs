//! Own part first: a dense layer whose input comes from all ranks need not wait for it. It is the sum of its products with
//! the parts of the input, `y = W[:, own] x_own + W[:, others] x_others + b`, and the first of them can be computed while
//! the others travel. (On two devices: own half and other half.)

use super::{Exchange, ExchangeId, LayerPlan, Operation, Plan, Read, Weights};
use crate::model::Kind;

impl Plan {
    /// The same plan, with every exchange in parts that can be: the same function but for the order of its sums.
    #[must_use]
    pub fn own_part_first(mut self) -> Self {
        for id in 0..self.exchanges.len() {
            self.exchanges[id].in_parts = self.may_come_in_parts(id);
        }
        self
    }

    /// Whether what an exchange brings need not be put together: each part is one range of channels, which is one range of
    /// columns of its readers' weights, and every reader multiplies all of them.
    fn may_come_in_parts(&self, id: ExchangeId) -> bool {
        let Exchange { owned, needed, operation, .. } = &self.exchanges[id];
        let (ranks, whole) = (owned.len(), self.model.shape(self.exchanges[id].source).channels);
        let reads = |planned: &LayerPlan| planned.sources.contains(&Read::Exchanged(id));
        let mut readers = (0..self.layers.len()).filter(|&layer| reads(&self.layers[layer]));
        *operation != Operation::AllReduce
            && owned.iter().all(|own| own.ranges().count() == 1)
            && needed.len() == ranks
            && needed.iter().all(|need| need.len() == whole)
            && readers.all(|layer| self.layers[layer].weights == Weights::OutputSplit && is_dense(self, layer))
    }
}

fn is_dense(plan: &Plan, layer: usize) -> bool {
    match &plan.model.layers[layer].kind {
        Kind::Conv(conv) => conv.groups == 1,
        Kind::Linear(_) => true,
        _ => false,
    }
}

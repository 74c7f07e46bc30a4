//! Own part first: a dense layer whose input comes from all ranks need not wait for it. It is the sum of its products with
//! the parts of the input, `y = W[:, own] x_own + W[:, others] x_others + b`, and the first of them can be computed while
//! the others travel. (On two devices: own half and other half.)

use super::{Exchange, ExchangeId, Operation, Plan, Read, Weights};

impl Plan {
    /// The same plan, with every exchange in parts that can be: the same function but for the order of its sums.
    #[must_use]
    pub fn own_part_first(mut self) -> Self {
        for id in 0..self.exchanges.len() {
            self.exchanges[id].in_parts = self.may_come_in_parts(id);
        }
        self
    }

    /// Whether what an exchange brings need not be put together: each part is one range of channels, and so of columns of
    /// its readers' weights, and every reader is dense. (Of a layer split by output that is not, a convolution in groups,
    /// some rank reads not all channels.)
    fn may_come_in_parts(&self, id: ExchangeId) -> bool {
        let Exchange { source, owned, needed, operation, .. } = &self.exchanges[id];
        let whole = self.model.shape(*source).channels;
        let mut readers = self.layers.iter().filter(|reader| reader.sources.contains(&Read::Exchanged(id)));
        *operation != Operation::AllReduce
            && owned.iter().all(|own| own.ranges().count() == 1)
            && needed.iter().all(|need| need.len() == whole)
            && readers.all(|reader| reader.weights == Weights::OutputSplit)
    }
}

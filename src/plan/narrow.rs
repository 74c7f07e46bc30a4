//! Exchanges in half precision: activations and their gradients travel in half of fp32's bytes, as in a variant of the network
//! of 2012 that its author measured. Sums over the ranks travel as they are computed.

use super::{Exchange, Operation, Plan};

impl Plan {
    /// The same plan, with every exchange but the sums in half precision. It is another function: what is exchanged is rounded.
    #[must_use]
    pub fn exchanged_in_half(mut self) -> Self {
        for exchange in &mut self.exchanges {
            exchange.in_half = exchange.operation != Operation::AllReduce;
        }
        self
    }
}

impl Exchange {
    /// The bytes in which a value travels that is computed in `value_bytes`.
    pub fn bytes_of_value(&self, value_bytes: usize) -> usize {
        if self.in_half { 2 } else { value_bytes }
    }

    /// What one adds to the exchange's name: how it differs from the plain one.
    pub fn manner(&self) -> &'static str {
        match (self.in_half, self.in_parts) {
            (false, false) => "",
            (false, true) => ", own part first",
            (true, false) => ", in fp16",
            (true, true) => ", in fp16, own part first",
        }
    }
}

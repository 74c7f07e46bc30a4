//! How operations get onto their streams, with their numbers.

use super::batch::{Batch, Planned};
use super::communicator::Communicator;
use super::exchange::Exchange;
use super::header::{Header, Lane};
use super::operation::Operation;
use super::result::Failure;
use crate::cuda::event::Mark;
use crate::cuda::stream::Stream;
use std::sync::Arc;

impl Communicator {
    /// Puts operations that belong together on their streams.
    pub fn launch(self: &Arc<Self>, operations: Vec<Operation>) -> Result<(), Failure> {
        let Some(exchange) = self.exchange().map(Arc::clone) else { return Ok(()) };
        let streams = self.streams(&operations)?;
        let Some((first, others)) = streams.split_first() else { return Ok(()) };
        let operations = self.plan(&exchange, operations);
        let number = self.turns.issue();
        let batch = Batch { communicator: Arc::clone(self), exchange: Arc::clone(&exchange), number, operations };
        let (words, accesses) = (batch.to_string(), batch.accesses());
        // A group over several streams begins when all of them have come to it, and all go on after it.
        others.iter().for_each(|other| Mark::put(other).hold_back(first));
        let pushed = first.push(&words, &accesses, move || batch.carry_out());
        others.iter().for_each(|other| Mark::put(first).hold_back(other));
        if let Err(race) = pushed {
            exchange.fail(self.broken("launch", &race));
            self.turns.finish();
        }
        Ok(())
    }

    /// The streams of some operations, each once.
    fn streams(&self, operations: &[Operation]) -> Result<Vec<Arc<Stream>>, Failure> {
        let mut streams: Vec<Arc<Stream>> = Vec::new();
        for operation in operations {
            if operation.stream.is_closed() {
                return Err(self.broken("launch", "the stream was destroyed before the operation was put on it"));
            }
            if !streams.iter().any(|stream| Arc::ptr_eq(stream, &operation.stream)) {
                streams.push(Arc::clone(&operation.stream));
            }
        }
        Ok(streams)
    }

    /// Numbers the operations, in the order in which they are carried out.
    fn plan(&self, exchange: &Exchange, operations: Vec<Operation>) -> Vec<Planned> {
        let (messages, collectives): (Vec<_>, Vec<_>) = operations.into_iter().partition(Operation::is_message);
        let planned = collectives.into_iter().chain(messages).map(|operation| {
            let partner = operation.peer.filter(|_| operation.is_message());
            let header = operation.header(self.next_sequence(operation.lane(), partner.unwrap_or(self.rank)));
            let peers = exchange.peers().filter(|&peer| partner.is_none_or(|partner| peer == partner));
            let headers = peers.map(|peer| (peer, exchange.issue(peer, header))).collect();
            Planned { operation, headers }
        });
        planned.collect()
    }
}

impl Operation {
    /// Its lane.
    fn lane(&self) -> Lane {
        self.header(0).lane()
    }

    /// What the other ranks are told of it.
    fn header(&self, sequence: u64) -> Header {
        Header {
            kind: self.kind,
            datatype: self.datatype,
            reduction: self.reduction,
            root: if self.is_message() { None } else { self.peer.map(|root| root as u32) },
            count: self.count as u64,
            sequence,
            sent: 0,
            received: 0,
        }
    }
}

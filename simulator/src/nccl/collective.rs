//! How the bytes of collectives move. Sums are taken in rank order by one rank for each part, and given to the others, so
//! that every rank has the same bits.

use super::batch::{Batch, Planned};
use super::deadlock::Need;
use super::exchange::Stopped;
use super::header::Lane;
use super::link::Channel;
use super::operation::{Kind, Operation};
use super::reduction::combine;
use super::types::{DataType, Reduction};
use crate::cuda::memory::{CHUNK, Range};

/// Carries out a collective: all ranks meet, then the bytes move.
pub fn carry_out(batch: &Batch, planned: &Planned) -> Result<(), Stopped> {
    meet(batch, planned)?;
    let transfer = Transfer { batch, operation: &planned.operation };
    match planned.operation.kind {
        Kind::AllReduce => transfer.all_reduce(),
        Kind::AllGather => transfer.all_gather(),
        Kind::ReduceScatter => transfer.reduce_scatter(),
        Kind::Broadcast => transfer.broadcast(),
        Kind::Reduce => transfer.reduce(),
        Kind::Send | Kind::Receive => Ok(()),
    }
}

/// Tells all ranks that this one is here, and waits until all are.
fn meet(batch: &Batch, planned: &Planned) -> Result<(), Stopped> {
    let exchange = &batch.exchange;
    planned.headers.iter().for_each(|(peer, header)| exchange.announce(*peer, header));
    exchange.until(batch.number, |inbound| {
        let missing = planned.headers.iter().filter(|(peer, _)| !inbound.has_met(*peer, Lane::Collective));
        let needs: Vec<_> = missing.map(|&(peer, header)| Need { peer, header }).collect();
        if !needs.is_empty() {
            return Err(needs);
        }
        planned.headers.iter().for_each(|(peer, _)| inbound.part(*peer, Lane::Collective));
        Ok(())
    })
}

struct Transfer<'a> {
    batch: &'a Batch,
    operation: &'a Operation,
}

impl Transfer<'_> {
    fn rank(&self) -> usize {
        self.batch.exchange.rank
    }

    fn size(&self) -> usize {
        self.batch.exchange.size
    }

    /// The part of a buffer that belongs to a rank, where each rank has as much as the call counts.
    fn share(&self, buffer: &Range, rank: usize) -> Range {
        let bytes = self.operation.count * self.operation.datatype.size();
        buffer.part(rank * bytes, bytes)
    }

    /// The part of a buffer that a rank sums up, where all have the whole.
    fn slice(&self, buffer: &Range, rank: usize) -> Range {
        let (count, size) = (self.operation.count, self.operation.datatype.size());
        let border = |rank: usize| (count as u128 * rank as u128 / self.size() as u128) as usize * size;
        buffer.part(border(rank), border(rank + 1) - border(rank))
    }

    fn all_reduce(&self) -> Result<(), Stopped> {
        let (Some(send), Some(receive)) = (&self.operation.send, &self.operation.receive) else { return Ok(()) };
        for peer in self.batch.exchange.peers() {
            self.send(&self.slice(send, peer), &[peer])?;
        }
        let peers: Vec<_> = self.batch.exchange.peers().collect();
        self.sum(&self.slice(send, self.rank()), &self.slice(receive, self.rank()), &peers)?;
        for peer in peers {
            self.receive(&self.slice(receive, peer), peer)?;
        }
        Ok(())
    }

    fn all_gather(&self) -> Result<(), Stopped> {
        let (Some(send), Some(receive)) = (&self.operation.send, &self.operation.receive) else { return Ok(()) };
        let peers: Vec<_> = self.batch.exchange.peers().collect();
        self.send(send, &peers)?;
        self.copy(send, &self.share(receive, self.rank()))?;
        for peer in peers {
            self.receive(&self.share(receive, peer), peer)?;
        }
        Ok(())
    }

    fn reduce_scatter(&self) -> Result<(), Stopped> {
        let (Some(send), Some(receive)) = (&self.operation.send, &self.operation.receive) else { return Ok(()) };
        for peer in self.batch.exchange.peers() {
            self.send(&self.share(send, peer), &[peer])?;
        }
        self.sum(&self.share(send, self.rank()), receive, &[])
    }

    fn broadcast(&self) -> Result<(), Stopped> {
        let (Some(receive), Some(root)) = (&self.operation.receive, self.operation.peer) else { return Ok(()) };
        match &self.operation.send {
            Some(send) => {
                self.send(send, &self.batch.exchange.peers().collect::<Vec<_>>())?;
                self.copy(send, receive)
            }
            None => self.receive(receive, root),
        }
    }

    fn reduce(&self) -> Result<(), Stopped> {
        let (Some(send), Some(root)) = (&self.operation.send, self.operation.peer) else { return Ok(()) };
        match &self.operation.receive {
            Some(receive) => self.sum(send, receive, &[]),
            None => self.send(send, &[root]),
        }
    }

    /// Sends device memory to other ranks.
    fn send(&self, from: &Range, peers: &[usize]) -> Result<(), Stopped> {
        let mut buffer = buffer(from);
        for chunk in from.chunks() {
            let buffer = &mut buffer[..chunk.length];
            self.batch.read(&chunk, buffer)?;
            peers.iter().for_each(|&peer| self.batch.exchange.send_bytes(peer, Channel::Collective, buffer));
        }
        Ok(())
    }

    /// Receives device memory from another rank.
    fn receive(&self, into: &Range, peer: usize) -> Result<(), Stopped> {
        let mut buffer = buffer(into);
        for chunk in into.chunks() {
            let buffer = &mut buffer[..chunk.length];
            self.batch.take(peer, Channel::Collective, buffer)?;
            self.batch.write(&chunk, buffer)?;
        }
        Ok(())
    }

    /// The own part of a result, unless the operation is in place.
    fn copy(&self, from: &Range, into: &Range) -> Result<(), Stopped> {
        if from.address() == into.address() {
            return Ok(());
        }
        let mut buffer = buffer(from);
        for (from, into) in from.chunks().zip(into.chunks()) {
            let buffer = &mut buffer[..from.length];
            self.batch.read(&from, buffer)?;
            self.batch.write(&into, buffer)?;
        }
        Ok(())
    }

    /// Sums, in rank order, the own memory and what the other ranks sent of the same place; gives the result to others.
    fn sum(&self, own: &Range, into: &Range, forward: &[usize]) -> Result<(), Stopped> {
        let datatype: DataType = self.operation.datatype;
        let reduction = self.operation.reduction.unwrap_or(Reduction::Sum);
        let (mut sums, mut nexts) = (buffer(own), buffer(own));
        for (from, into) in own.chunks().zip(into.chunks()) {
            let (sum, next) = (&mut sums[..from.length], &mut nexts[..from.length]);
            for rank in 0..self.size() {
                let summand = if rank == 0 { &mut *sum } else { &mut *next };
                if rank == self.rank() {
                    self.batch.read(&from, summand)?;
                } else {
                    self.batch.take(rank, Channel::Collective, summand)?;
                }
                if rank > 0 {
                    combine(datatype, reduction, sum, next);
                }
            }
            self.batch.write(&into, sum)?;
            forward.iter().for_each(|&peer| self.batch.exchange.send_bytes(peer, Channel::Collective, sum));
        }
        Ok(())
    }
}

/// A buffer for one chunk.
fn buffer(of: &Range) -> Vec<u8> {
    vec![0; CHUNK.min(of.length)]
}

//! The transport between threads of one process: tensors pass through shared memory. A call hands every other rank a
//! reference to this rank's tensor and takes theirs; nothing is copied until a rank puts together what it needs.
//!
//! Every call, whatever its operation, sends one message to each other rank of the group and takes one from each. So
//! ranks that make different calls still meet, compare, and fail; and a rank that ends drops its channels, which wakes
//! all who wait for it.

use super::call::{Operation, Signature};
use super::{Call, Collective, Traffic};
use crate::error::{Error, Result};
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use std::time::{Duration, Instant};
use tch::Tensor;

/// Messages that may wait between two ranks. A rank cannot begin its second next call before the other has begun the
/// next one, so sending never blocks.
const OUTSTANDING: usize = 2;

struct Message {
    signature: Signature,
    tensor: Option<Tensor>,
}

struct Peer {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

/// One rank's end of a group of threads.
pub struct Local {
    rank: usize,
    /// The ranks of the whole run that make up the group, for messages.
    members: Vec<usize>,
    /// By place in the group; `None` at the own place.
    peers: Vec<Option<Peer>>,
    sequence: u64,
    traffic: Traffic,
    waited: Duration,
}

/// The ends of a group of these ranks, in their order.
pub fn group(members: &[usize]) -> Vec<Local> {
    let size = members.len();
    let mut ends: Vec<Local> = (0..size)
        .map(|rank| Local {
            rank,
            members: members.to_vec(),
            peers: (0..size).map(|_| None).collect(),
            sequence: 0,
            traffic: Traffic::default(),
            waited: Duration::ZERO,
        })
        .collect();
    for low in 0..size {
        for high in low + 1..size {
            let (to_high, from_low) = bounded(OUTSTANDING);
            let (to_low, from_high) = bounded(OUTSTANDING);
            ends[low].peers[high] = Some(Peer { sender: to_high, receiver: from_high });
            ends[high].peers[low] = Some(Peer { sender: to_low, receiver: from_low });
        }
    }
    ends
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

impl Local {
    /// Meets every other rank: gives `outgoing[r]` to rank `r`, and gives what each rank had for this one (the own
    /// tensor at the own place).
    fn meet(&mut self, signature: &Signature, outgoing: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        for (to, peer) in self.peers.iter().enumerate() {
            let Some(peer) = peer else { continue };
            let tensor = outgoing[to].as_ref().map(Tensor::shallow_clone);
            self.traffic.sent_bytes += tensor.as_ref().map_or(0, bytes);
            let message = Message { signature: signature.clone(), tensor };
            // A rank that has gone is found out below, by what it left unsent.
            let _ = peer.sender.send(message);
        }
        let mut incoming = Vec::with_capacity(self.peers.len());
        for (from, own) in outgoing.iter().enumerate() {
            incoming.push(match self.receive(from, signature)? {
                Some(message) => self.checked(from, signature, message)?,
                None => own.as_ref().map(Tensor::shallow_clone),
            });
        }
        Ok(incoming)
    }

    /// The next message of a rank, or `None` at the own place. Time spent blocked counts as waiting.
    fn receive(&mut self, from: usize, signature: &Signature) -> Result<Option<Message>> {
        let Some(peer) = &self.peers[from] else { return Ok(None) };
        let gone = || {
            let (peer, own) = (self.members[from], self.members[self.rank]);
            Error::PeerGone(format!("rank {own} waits in {signature}, but rank {peer} has ended"))
        };
        match peer.receiver.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(TryRecvError::Disconnected) => Err(gone()),
            Err(TryRecvError::Empty) => {
                let start = Instant::now();
                let message = peer.receiver.recv().map_err(|_| gone())?;
                self.waited += start.elapsed();
                Ok(Some(message))
            }
        }
    }

    fn checked(&mut self, from: usize, signature: &Signature, message: Message) -> Result<Option<Tensor>> {
        if !signature.agrees(&message.signature) {
            let (own, peer) = (self.members[self.rank], self.members[from]);
            return Err(Error::failed(format!(
                "the ranks do not make the same calls: rank {own} is in {signature}, but rank {peer} is in {}",
                message.signature
            )));
        }
        self.traffic.received_bytes += message.tensor.as_ref().map_or(0, bytes);
        Ok(message.tensor)
    }

    fn signature(&mut self, operation: Operation, call: &Call, tensors: &[&Tensor]) -> Signature {
        self.sequence += 1;
        Signature::new(self.sequence, operation, call, tensors)
    }

    /// Like [`Local::meet`], where every rank has something for every other.
    fn meet_all(&mut self, signature: &Signature, outgoing: &[Tensor]) -> Result<Vec<Tensor>> {
        let outgoing: Vec<Option<Tensor>> = outgoing.iter().map(|tensor| Some(tensor.shallow_clone())).collect();
        let incoming: Option<Vec<Tensor>> = self.meet(signature, &outgoing)?.into_iter().collect();
        incoming.ok_or_else(|| Error::failed(format!("a rank came to {signature} without a tensor")))
    }
}

fn sum(parts: &[Tensor]) -> Result<Tensor> {
    let (first, others) = parts.split_first().ok_or_else(|| Error::failed("a sum over an empty group"))?;
    let Some((second, others)) = others.split_first() else { return Ok(first.shallow_clone()) };
    let mut sum = first.f_add(second)?;
    for part in others {
        sum = sum.f_add_(part)?;
    }
    Ok(sum)
}

impl Collective for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn all_gather(&mut self, call: &Call, own: &Tensor) -> Result<Vec<Tensor>> {
        let signature = self.signature(Operation::AllGather, call, &[own]);
        let outgoing: Vec<Tensor> = (0..self.size()).map(|_| own.shallow_clone()).collect();
        self.meet_all(&signature, &outgoing)
    }

    fn reduce_scatter(&mut self, call: &Call, parts: &[Tensor]) -> Result<Tensor> {
        sum(&self.reduce_scatter_summands(call, parts)?)
    }

    fn reduce_scatter_summands(&mut self, call: &Call, parts: &[Tensor]) -> Result<Vec<Tensor>> {
        let signature = self.signature(Operation::ReduceScatter, call, &parts.iter().collect::<Vec<_>>());
        if parts.len() != self.size() {
            let (found, size) = (parts.len(), self.size());
            return Err(Error::failed(format!("{signature}: {found} parts for a group of {size} ranks")));
        }
        self.meet_all(&signature, parts)
    }

    fn common(&mut self, call: &Call, own: Tensor) -> Result<Tensor> {
        let before = self.traffic;
        let first = self.all_gather(call, &own)?.into_iter().next();
        // Nothing has travelled: this is memory that the ranks have in common.
        self.traffic = before;
        first.ok_or_else(|| Error::failed("a buffer for an empty group"))
    }

    fn all_reduce(&mut self, call: &Call, own: &Tensor) -> Result<Tensor> {
        let signature = self.signature(Operation::AllReduce, call, &[own]);
        let outgoing: Vec<Tensor> = (0..self.size()).map(|_| own.shallow_clone()).collect();
        sum(&self.meet_all(&signature, &outgoing)?)
    }

    fn send_receive(
        &mut self,
        call: &Call,
        sends: &[Option<Tensor>],
        receives: &[Option<Vec<i64>>],
    ) -> Result<Vec<Option<Tensor>>> {
        let tensors: Vec<&Tensor> = sends.iter().flatten().collect();
        let signature = self.signature(Operation::SendReceive, call, &tensors);
        if sends.len() != self.size() || receives.len() != self.size() {
            return Err(Error::failed(format!("{signature}: sends and receives must be given for each rank")));
        }
        let incoming = self.meet(&signature, sends)?;
        for (from, (tensor, expected)) in incoming.iter().zip(receives).enumerate() {
            let found = tensor.as_ref().map(Tensor::size);
            if from != self.rank && found != *expected {
                let (own, peer) = (self.members[self.rank], self.members[from]);
                let say =
                    |shape: &Option<Vec<i64>>| shape.as_ref().map_or("nothing".into(), |shape| format!("{shape:?}"));
                return Err(Error::failed(format!(
                    "{signature}: rank {own} expects {} from rank {peer}, which sent {}",
                    say(expected),
                    say(&found)
                )));
            }
        }
        Ok(incoming)
    }

    fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

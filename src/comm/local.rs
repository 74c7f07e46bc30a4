//! The transport between threads of one process: tensors pass through shared memory. A call hands every other rank a
//! reference to this rank's tensor and takes theirs; nothing is copied until a rank puts together what it needs.
//!
//! Every call, whatever its operation, sends one message to each other rank of the group as it starts, and takes one
//! from each as it finishes. So ranks that make different calls still meet, compare, and fail; and a rank that ends drops
//! its channels, which wakes all who wait for it.

use super::call::{Operation, Signature};
use super::request::{Arrived, Request, Ticket};
use super::{Call, Collective, Form, Timing, Traffic, Volume};
use crate::clock::Moment;
use crate::error::{Error, Result};
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::collections::{BTreeMap, VecDeque};
use tch::Tensor;

struct Message {
    signature: Signature,
    /// When its sender arrived.
    sent: Moment,
    tensor: Option<Tensor>,
}

struct Peer {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    /// What came before it was wanted: calls may be finished in another order than they were started.
    early: VecDeque<Message>,
}

/// One rank's end of a group of threads.
pub struct Local {
    rank: usize,
    /// The ranks of the whole run that make up the group, for messages.
    members: Vec<usize>,
    /// By place in the group; `None` at the own place.
    peers: Vec<Option<Peer>>,
    sequence: u64,
    /// Calls that were started and not finished, by their number.
    started: BTreeMap<u64, Started>,
    traffic: Traffic,
    /// Calls that were finished, by their number.
    timings: BTreeMap<u64, Timing>,
}

struct Started {
    signature: Signature,
    arrived: Moment,
    /// The tensor that this rank has for itself.
    own: Option<Tensor>,
    /// The rank whose tensor all get, in a broadcast.
    root: Option<usize>,
    /// The forms that are expected, where each rank's is another.
    receives: Option<Vec<Option<Form>>>,
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
            started: BTreeMap::new(),
            traffic: Traffic::default(),
            timings: BTreeMap::new(),
        })
        .collect();
    for low in 0..size {
        for high in low + 1..size {
            let (to_high, from_low) = unbounded();
            let (to_low, from_high) = unbounded();
            ends[low].peers[high] = Some(Peer { sender: to_high, receiver: from_high, early: VecDeque::new() });
            ends[high].peers[low] = Some(Peer { sender: to_low, receiver: from_low, early: VecDeque::new() });
        }
    }
    ends
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

impl Local {
    /// Hands each other rank what it has for it. Nobody waits here: a rank that has gone is found out when this rank
    /// takes what it left unsent.
    fn send(&mut self, signature: &Signature, sent: Moment, outgoing: impl Fn(usize) -> Option<Tensor>) {
        for (to, peer) in self.peers.iter().enumerate() {
            let Some(peer) = peer else { continue };
            let tensor = outgoing(to);
            let sent_bytes = tensor.as_ref().map_or(0, bytes);
            self.traffic.count(signature.operation, Volume { sent_bytes, received_bytes: 0 });
            let _ = peer.sender.send(Message { signature: signature.clone(), sent, tensor });
        }
    }

    /// What each rank had for this one, the own tensor at the own place, and when the last of the others had arrived.
    fn take(&mut self, signature: &Signature, own: Option<Tensor>) -> Result<(Vec<Option<Tensor>>, Moment)> {
        let (mut own, mut last) = (own, Moment::default());
        let mut incoming = Vec::with_capacity(self.peers.len());
        for from in 0..self.peers.len() {
            incoming.push(match self.receive(from, signature)? {
                Some(message) => {
                    last = last.max(message.sent);
                    self.checked(from, signature, message)?
                }
                None => own.take(),
            });
        }
        Ok((incoming, last))
    }

    /// What a rank has sent for a call, or `None` at the own place.
    fn receive(&mut self, from: usize, signature: &Signature) -> Result<Option<Message>> {
        let (peer_rank, own) = (self.members[from], self.members[self.rank]);
        let Some(peer) = &mut self.peers[from] else { return Ok(None) };
        let wanted = |message: &Message| message.signature.sequence == signature.sequence;
        if let Some(place) = peer.early.iter().position(wanted) {
            return Ok(peer.early.remove(place));
        }
        let gone = || Error::PeerGone(format!("rank {own} waits in {signature}, but rank {peer_rank} has ended"));
        loop {
            let message = peer.receiver.recv().map_err(|_| gone())?;
            if wanted(&message) {
                return Ok(Some(message));
            }
            peer.early.push_back(message);
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
        let received_bytes = message.tensor.as_ref().map_or(0, bytes);
        self.traffic.count(signature.operation, Volume { sent_bytes: 0, received_bytes });
        Ok(message.tensor)
    }

    /// Finds a tensor that came in another shape than this rank expects.
    fn check_shapes(
        &self,
        signature: &Signature,
        incoming: &[Option<Tensor>],
        receives: &[Option<Form>],
    ) -> Result<()> {
        for (from, (tensor, expected)) in incoming.iter().zip(receives).enumerate() {
            let found = tensor.as_ref().map(Tensor::size);
            let expected = expected.as_ref().map(|form| form.shape.clone());
            if from != self.rank && found != expected {
                let (own, peer) = (self.members[self.rank], self.members[from]);
                let say =
                    |shape: &Option<Vec<i64>>| shape.as_ref().map_or("nothing".into(), |shape| format!("{shape:?}"));
                return Err(Error::failed(format!(
                    "{signature}: rank {own} expects {} from rank {peer}, which sent {}",
                    say(&expected),
                    say(&found)
                )));
            }
        }
        Ok(())
    }
}

/// What a rank has for rank `to` in a call.
fn outgoing(request: &Request, own_rank: usize, to: usize) -> Option<Tensor> {
    match request {
        Request::AllGather(own) | Request::AllReduce(own) => Some(own.shallow_clone()),
        Request::ReduceScatter(parts) | Request::AllToAll(parts) => Some(parts[to].shallow_clone()),
        Request::Broadcast(own, root) => (*root == own_rank).then(|| own.shallow_clone()),
        Request::SendReceive { sends, .. } => sends[to].as_ref().map(Tensor::shallow_clone),
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

    fn start(&mut self, call: &Call, request: Request) -> Result<Ticket> {
        self.sequence += 1;
        let signature = Signature::new(self.sequence, call, &request);
        request.check(&signature, self.size())?;
        let (rank, arrived) = (self.rank, Moment::now());
        self.send(&signature, arrived, |to| outgoing(&request, rank, to));
        let own = outgoing(&request, rank, rank);
        let (root, receives) = match request {
            Request::Broadcast(_, root) => (Some(root), None),
            Request::SendReceive { receives, .. } => (None, Some(receives)),
            _ => (None, None),
        };
        self.started.insert(self.sequence, Started { signature, arrived, own, root, receives });
        Ok(Ticket(self.sequence))
    }

    fn finish(&mut self, ticket: Ticket) -> Result<Arrived> {
        let started = self.started.remove(&ticket.0);
        let Started { signature, arrived, own, root, receives } = started.ok_or_else(|| ticket.unknown())?;
        let asked = Moment::now();
        let (mut incoming, last) = self.take(&signature, own)?;
        let result = match (signature.operation, root) {
            (Operation::ReduceScatter | Operation::AllReduce, _) => {
                Arrived::single(sum(&Arrived::new(incoming).from_all()?)?)
            }
            (Operation::Broadcast, Some(root)) => Arrived::new(vec![incoming[root].take()]),
            _ => {
                if let Some(receives) = &receives {
                    self.check_shapes(&signature, &incoming, receives)?;
                }
                Arrived::new(incoming)
            }
        };
        if self.size() > 1 {
            let timing = Timing { arrived, asked, came: last.max(arrived), done: Moment::now() };
            self.timings.insert(ticket.0, timing);
        }
        Ok(result)
    }

    fn common(&mut self, call: &Call, own: Tensor) -> Result<Tensor> {
        let before = self.traffic;
        let first = self.all_gather(call, &own)?.into_iter().next();
        // Nothing has travelled: this is memory that the ranks have in common.
        self.traffic = before;
        first.ok_or_else(|| Error::failed("a buffer for an empty group"))
    }

    fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn take_timings(&mut self) -> Vec<Timing> {
        std::mem::take(&mut self.timings).into_values().collect()
    }
}

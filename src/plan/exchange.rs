//! What travels between the ranks of the model axis, and how the gradients travel back.
//!
//! An exchange turns what each rank owns of an activation into what each rank needs of it. Its adjoint turns the
//! gradient of what was needed into the gradient of what is owned: every piece goes back to its owner, who sums the
//! pieces in rank order. Both are the same set of transfers, read in the two directions.

use crate::model::{ActivationId, Channels, LayerId, Model};

/// An exchange over the model axis, before the layers that read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The activation that is exchanged.
    pub source: ActivationId,
    /// The first layer that reads what it brings.
    pub reader: LayerId,
    /// What each rank owns of the activation: disjoint sets (all of it on each rank, for a sum).
    pub owned: Vec<Channels>,
    /// What each rank needs of it.
    pub needed: Vec<Channels>,
    /// How it is carried out.
    pub operation: Operation,
    /// How gradients go back.
    pub adjoint: Adjoint,
    /// Whether its readers take it part by part, as the ranks own it, so that they compute with the own part while the
    /// others travel: see [`super::parts`]. Otherwise it is put together first.
    pub in_parts: bool,
    /// Whether its values travel in fp16, whatever they are computed in.
    pub in_half: bool,
}

/// How an exchange is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Equal shares, all needed everywhere: one all-gather, and a reduce-scatter on the way back.
    AllGather,
    /// Any other schedule: one group of sends and receives, in both directions.
    SendReceive,
    /// The sum of every rank's summand, on every rank: an all-reduce.
    AllReduce,
}

/// How the gradient of an exchange goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Adjoint {
    /// Each rank has a different gradient of what it read: the pieces go back to their owners and are summed.
    Sum,
    /// Each rank has the same gradient (its reader was replicated): each keeps its own part. Summing would count
    /// the gradient once per rank.
    Slice,
    /// The gradient of a sum is the gradient of each summand: it stays as it is.
    Identity,
}

/// Channels that go from one rank to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transfer {
    /// The model rank that sends.
    pub from: usize,
    /// The model rank that receives.
    pub to: usize,
    /// The channels of the activation.
    pub channels: Channels,
}

/// Everything that must travel so that ranks owning `owned` come to hold `needed`, ordered by sender and receiver.
pub fn transfers(owned: &[Channels], needed: &[Channels]) -> Vec<Transfer> {
    let mut transfers = Vec::new();
    for (from, own) in owned.iter().enumerate() {
        for (to, need) in needed.iter().enumerate() {
            let channels = own.intersection(need);
            if from != to && !channels.is_empty() {
                transfers.push(Transfer { from, to, channels });
            }
        }
    }
    transfers
}

impl Exchange {
    /// The exchange that brings `needed` to each rank, in its cheapest form.
    pub fn gather(
        source: ActivationId,
        reader: LayerId,
        owned: Vec<Channels>,
        needed: Vec<Channels>,
        adjoint: Adjoint,
    ) -> Self {
        let whole = owned.iter().fold(Channels::none(), |all, own| all.union(own));
        let even = owned.iter().all(|own| own.len() == owned[0].len());
        let ordered = owned.windows(2).all(|pair| {
            let ends = pair[0].ranges().last().map(|range| range.end);
            pair[1].ranges().next().map(|range| range.start) == ends
        });
        let contiguous = owned.iter().all(|own| own.ranges().count() == 1);
        let everywhere = needed.iter().all(|need| *need == whole);
        let lowered = even && ordered && contiguous && everywhere;
        let operation = if lowered { Operation::AllGather } else { Operation::SendReceive };
        Self { source, reader, owned, needed, operation, adjoint, in_parts: false, in_half: false }
    }

    /// The exchange that sums the partial activations of all ranks.
    pub fn sum(source: ActivationId, reader: LayerId, ranks: usize, channels: usize) -> Self {
        let all = vec![Channels::all(channels); ranks];
        let (operation, adjoint) = (Operation::AllReduce, Adjoint::Identity);
        Self { source, reader, owned: all.clone(), needed: all, operation, adjoint, in_parts: false, in_half: false }
    }

    /// How many tensors it brings to a rank: one, or in parts one from each rank of the axis, in rank order.
    pub fn tensors(&self) -> usize {
        if self.in_parts { self.owned.len() } else { 1 }
    }

    /// What travels in the forward pass, for gathers and sends alike. (For a sum: every summand to every other rank.)
    pub fn transfers(&self) -> Vec<Transfer> {
        transfers(&self.owned, &self.needed)
    }

    /// What travels in the backward pass.
    pub fn adjoint_transfers(&self) -> Vec<Transfer> {
        match self.adjoint {
            Adjoint::Sum => {
                let back = self.transfers().into_iter();
                back.map(|Transfer { from, to, channels }| Transfer { from: to, to: from, channels }).collect()
            }
            Adjoint::Slice | Adjoint::Identity => Vec::new(),
        }
    }

    /// Values per example that `rank` sends forward and backward.
    pub fn values_sent(&self, model: &Model, rank: usize) -> (usize, usize) {
        self.count(model, |transfer| transfer.from == rank)
    }

    /// Values per example that `rank` receives forward and backward.
    pub fn values_received(&self, model: &Model, rank: usize) -> (usize, usize) {
        self.count(model, |transfer| transfer.to == rank)
    }

    fn count(&self, model: &Model, which: impl Fn(&Transfer) -> bool) -> (usize, usize) {
        let area = model.shape(self.source).area();
        let values = |transfers: Vec<Transfer>| -> usize {
            transfers.iter().filter(|transfer| which(transfer)).map(|transfer| transfer.channels.len() * area).sum()
        };
        (values(self.transfers()), values(self.adjoint_transfers()))
    }
}

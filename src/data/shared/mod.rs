//! One loader for all ranks of a host. The first rank of the host makes the batches; the others, which are processes of
//! their own, copy theirs out of memory that they share with it.
//!
//! * `slots` the memory, a few batches long
//! * `handover` how the memory of a stream and the two ends of its line reach another process
//! * `notice` what goes along the line
//! * `serve` the first rank's side, and `join` the other ranks'
//!
//! Each stream of batches (an epoch, an evaluation) has memory and lines of its own, which have no name anywhere: they end
//! with the stream, or with the processes. Who waits, waits for its line. So a process that ends is an end of file to the
//! others, and a stream that one side leaves early is one as well.

mod handover;
mod join;
mod notice;
mod serve;
mod slots;

pub use serve::Shelf;

use super::loader::{self, Delivery, LoaderOptions};
use super::outlet::Outlet;
use super::source::Source;
use crate::error::Result;
use crossbeam::channel::{Receiver, bounded};
use slots::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Where the batches of the ranks of this process come from.
pub enum Supply {
    /// A loader of this process, which all ranks of the run are in.
    Here,
    /// A loader of this process for its one rank, the first of its host, and for the others of the host.
    First {
        /// The rank of this process.
        rank: usize,
        /// The others, each with a connection to its process.
        others: Vec<(usize, UnixStream)>,
    },
    /// The loader of the first rank of the host.
    Other {
        /// That rank.
        first: usize,
        /// A connection to its process.
        link: UnixStream,
        /// How long that rank may be silent while this one has no batch left.
        patience: Duration,
    },
}

impl Supply {
    /// The ranks of the host as far as this process knows them, of so many in all: it and those that it makes batches for.
    pub fn ranks(&self, all: usize) -> BTreeSet<usize> {
        match self {
            Self::Here => (0..all).collect(),
            Self::First { rank, others } => others.iter().map(|(other, _)| *other).chain([*rank]).collect(),
            Self::Other { .. } => BTreeSet::new(),
        }
    }

    /// Starts the next stream of batches. All processes of a host start the same streams, with the same options and in the
    /// same order. Returns a channel for each rank of this process, as [`loader::start`] does.
    ///
    /// # Errors
    /// As there; or no memory can be shared, or the process that makes the batches has gone or is silent. What happens later
    /// is the last thing in the channels.
    pub fn stream(&self, source: &Arc<dyn Source>, options: LoaderOptions) -> Result<Vec<Receiver<Delivery>>> {
        match self {
            Self::Here => loader::start(Arc::clone(source), options),
            Self::First { rank, others } => {
                let examples = loader::check(source.as_ref(), &options)?;
                let (sender, receiver) = bounded(options.prefetch);
                let mut outlets = BTreeMap::new();
                let outlet = |data_rank| Outlet { data_rank, here: Vec::new(), elsewhere: None };
                let of_rank = |rank: usize| rank / options.replicas;
                outlets.entry(of_rank(*rank)).or_insert_with_key(|&rank| outlet(rank)).here.push(sender);
                for (rank, link) in others {
                    let outlet = outlets.entry(of_rank(*rank)).or_insert_with_key(|&rank| outlet(rank));
                    let shelf = match outlet.elsewhere.take() {
                        Some(shelf) => shelf,
                        None => Shelf::new(Layout::of(source.as_ref(), &options))?,
                    };
                    outlet.elsewhere.insert(shelf).admit(link)?;
                }
                loader::run(Arc::clone(source), options, examples, outlets.into_values().collect())?;
                Ok(vec![receiver])
            }
            Self::Other { first, link, patience } => {
                loader::check(source.as_ref(), &options)?;
                let layout = Layout::of(source.as_ref(), &options);
                Ok(vec![join::stream(*first, link, *patience, layout, options.prefetch)?])
            }
        }
    }
}

#[cfg(test)]
mod tests;

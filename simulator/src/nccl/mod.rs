//! The simulated NCCL: communicators whose ranks are processes or threads of one machine.
//!
//! In the order in which an operation passes through them:
//! * [`exports`] the C functions
//! * [`group`] what a thread issues between `ncclGroupStart` and `ncclGroupEnd`
//! * [`operation`] one operation, its arguments checked
//! * [`job`] operations on their way to a stream: at once, or when they have been polled for
//! * [`communicator`] a rank's communicator and what it may do next
//! * [`launch`] putting them on their streams, with their numbers
//! * [`order`] how many operations went to each peer, over all communicators
//! * [`batch`] what a stream carries out in one go: announce, compare, move; and [`turns`], one batch after the other
//! * [`collective`] and [`message`] how the bytes of each operation move
//! * [`reduction`] sums in rank order, each addition rounded to the type
//! * [`exchange`], [`link`] and [`inbound`] the connections to the other ranks, and what has come over them
//! * [`header`] what ranks tell each other of an operation, and its comparison
//! * [`deadlock`] finding ranks that wait for one another
//!
//! And apart from these [`unique_id`] and [`rendezvous`], how ranks find each other, and [`config`], [`types`],
//! [`result`].

pub mod batch;
pub mod collective;
pub mod communicator;
pub mod config;
pub mod deadlock;
pub mod exchange;
pub mod exports;
pub mod group;
pub mod header;
pub mod inbound;
pub mod job;
pub mod launch;
pub mod link;
pub mod message;
pub mod operation;
pub mod order;
pub mod reduction;
pub mod rendezvous;
pub mod result;
pub mod turns;
pub mod types;
pub mod unique_id;

pub use result::{Failure, NcclResult};

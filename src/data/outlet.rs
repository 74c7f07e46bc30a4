//! Where the loader leaves one data rank's share of each batch: with the ranks of this process, through channels, and with
//! those of other processes of the host, through shared memory.

use super::loader::Delivery;
use super::shared::Shelf;
use crossbeam::channel::Sender;

/// Everyone who is to have the same share.
pub struct Outlet {
    /// Whose share it is: a rank along the data axis.
    pub data_rank: usize,
    /// The ranks of this process.
    pub here: Vec<Sender<Delivery>>,
    /// The ranks of other processes.
    pub elsewhere: Option<Shelf>,
}

impl Outlet {
    /// Hands the next share to everyone, waiting for who has no room for it. Returns whether anyone still listens; one
    /// that does not is passed over, since others may have to finish a step without it.
    pub fn hand(&mut self, delivery: &Delivery) -> bool {
        let here = self.here.iter().filter(|sender| sender.send(delivery.clone()).is_ok()).count() > 0;
        let elsewhere = self.elsewhere.as_mut().is_some_and(|shelf| shelf.hand(delivery));
        here || elsewhere
    }

    /// Says that there is nothing more. Those here see it when their channel closes.
    pub fn end(&mut self) {
        self.elsewhere.iter_mut().for_each(Shelf::end);
    }
}

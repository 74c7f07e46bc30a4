//! Work that nobody waits for: a queue, and a thread that works through it. A disk that is slow, or gone for a while,
//! holds up that thread and nothing else.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::io;
use std::thread;
use std::time::Duration;

/// A thread that takes items one after the other.
pub struct Background<T> {
    /// `None`: nothing more will come.
    items: Option<Sender<T>>,
    waiting: Receiver<T>,
    /// Says nothing, but ends with the thread.
    ended: Receiver<()>,
    most: usize,
}

impl<T: Send + 'static> Background<T> {
    /// Starts a thread that gives each item to `take`; at most `most` items wait.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(name: &str, most: usize, mut take: impl FnMut(T) + Send + 'static) -> io::Result<Self> {
        let (items, waiting) = unbounded();
        let (end, ended) = bounded(0);
        let queue = waiting.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _end = end;
            queue.into_iter().for_each(&mut take);
        })?;
        Ok(Self { items: Some(items), waiting, ended, most })
    }

    /// Hands over an item, unless too many wait already; tells whether it was taken.
    pub fn offer(&self, item: T) -> bool {
        self.waiting.len() < self.most && self.insist(item)
    }

    /// Hands over an item, however many wait; tells whether the thread is still there.
    pub fn insist(&self, item: T) -> bool {
        self.items.as_ref().is_some_and(|items| items.send(item).is_ok())
    }

    /// Waits until everything is done, but no longer than this. What is left then is not done any more.
    pub fn finish(&mut self, limit: Duration) -> Left<T> {
        self.items = None;
        let at_hand = self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        Left { at_hand, waiting: self.waiting.try_iter().collect() }
    }
}

/// What is left when nobody waits any longer.
#[derive(Debug, PartialEq)]
pub struct Left<T> {
    /// Whether the thread has an item in hand, of which nobody knows what becomes.
    pub at_hand: bool,
    /// The items behind it.
    pub waiting: Vec<T>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::TryRecvError;

    #[test]
    fn who_hands_over_never_waits_and_no_more_than_so_many_wait() {
        let (open, gate) = unbounded::<()>();
        let (entered, at_the_gate) = unbounded();
        let (done, results) = unbounded();
        let mut work = Background::start("test", 2, move |item: u32| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
            done.send(item).unwrap();
        })
        .unwrap();
        assert!(work.offer(1));
        at_the_gate.recv().unwrap();
        // The thread is held up with the first: two more may wait, and then only what must not be lost.
        assert_eq!([work.offer(2), work.offer(3), work.offer(4), work.insist(5)], [true, true, false, true]);
        assert_eq!(results.try_recv(), Err(TryRecvError::Empty));
        (0..2).for_each(|_| open.send(()).unwrap());
        (0..2).for_each(|_| at_the_gate.recv().unwrap());
        assert_eq!(work.finish(Duration::ZERO), Left { at_hand: true, waiting: vec![5] });
        assert!(!work.insist(6), "nothing comes after the end");
        open.send(()).unwrap();
        assert_eq!(work.finish(Duration::from_secs(600)), Left { at_hand: false, waiting: Vec::new() });
        assert_eq!(results.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}

//! The other ranks' side: a thread that copies this rank's shares out of the memory of the first rank of the host.

use super::handover;
use super::notice::{COPIED, Notice};
use super::slots::{Layout, Slots};
use crate::data::loader::{Delivery, panicked};
use crate::error::{Error, Result};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Takes over the next stream that rank `first` opens; up to `prefetch` batches wait in its channel.
///
/// # Errors
/// That rank has gone or is silent, or its memory is not what was expected.
pub fn stream(
    first: usize,
    link: &UnixStream,
    patience: Duration,
    layout: Layout,
    prefetch: usize,
) -> Result<Receiver<Delivery>> {
    // To the system, zero is no limit.
    let patience = patience.max(Duration::from_millis(1));
    let first = First { rank: first, patience };
    link.set_read_timeout(Some(patience)).map_err(|error| first.cannot(&error))?;
    let (line, memory) = handover::receive(link).map_err(|error| match is_silence(&error) {
        true => first.silent(),
        false => first.gone(),
    })?;
    line.set_read_timeout(Some(patience)).map_err(|error| first.cannot(&error))?;
    let mut reading =
        Reading { first, slots: Slots::of(layout, memory)?, line: BufReader::new(line), text: Vec::new() };
    let (sender, receiver) = bounded(prefetch);
    let work = move || {
        let ended = catch_unwind(AssertUnwindSafe(|| reading.deliver(&sender)));
        if let Err(error) = ended.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
            // If nobody listens any more, nobody misses it.
            let _ = sender.send(Err(error));
        }
    };
    thread::Builder::new()
        .name("loader".into())
        .spawn(work)
        .map_err(|error| Error::failed(format!("cannot start the data loader's thread: {error}")))?;
    Ok(receiver)
}

/// The rank that makes the batches, as this one speaks of it.
struct First {
    rank: usize,
    patience: Duration,
}

impl First {
    fn gone(&self) -> Error {
        Error::PeerGone(format!("the loader of rank {}, which makes the batches of this host, has gone", self.rank))
    }

    fn silent(&self) -> Error {
        Error::failed(format!(
            "the loader of rank {}, which makes the batches of this host, has made none for {:.0?}: it is stopped, or its \
             data comes too slowly; parallel.timeout sets how long it is waited for",
            self.rank, self.patience
        ))
    }

    fn cannot(&self, error: &io::Error) -> Error {
        Error::failed(format!("the loader of rank {} cannot be waited for: {error}", self.rank))
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

struct Reading {
    first: First,
    slots: Slots,
    line: BufReader<UnixStream>,
    /// What has come of the next notice.
    text: Vec<u8>,
}

impl Reading {
    /// Copies every share of the stream into the channel, until the stream is over or nobody listens.
    fn deliver(&mut self, sender: &Sender<Delivery>) -> Result<()> {
        for number in 0.. {
            let batch = match self.next(sender)? {
                Notice::Batch { step, global_examples, examples } => {
                    self.slots.read(number, examples, step, global_examples)?
                }
                Notice::Failed(error) => return Err(error),
                Notice::Over => break,
            };
            // A first rank that has left the stream does not ask for the answer; one that has gone is seen when it is read
            // from.
            let _ = self.line.get_mut().write_all(&[COPIED]);
            if sender.send(Ok(Arc::new(batch))).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The next notice. Silence counts only while this rank has no batch left: until then the first rank may itself be
    /// waiting for ranks that have.
    fn next(&mut self, sender: &Sender<Delivery>) -> Result<Notice> {
        loop {
            let nothing_left = sender.is_empty();
            match self.line.read_until(b'\n', &mut self.text) {
                Ok(_) if self.text.ends_with(b"\n") => break,
                Err(error) if is_silence(&error) && nothing_left => return Err(self.first.silent()),
                Err(error) if is_silence(&error) => {}
                _ => return Err(self.first.gone()),
            }
        }
        let notice = serde_json::from_slice(&self.text);
        self.text.clear();
        notice.map_err(|error| Error::failed(format!("a notice of the loader of rank {}: {error}", self.first.rank)))
    }
}

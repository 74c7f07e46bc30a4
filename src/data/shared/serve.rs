//! The first rank's side: a data rank's share of each batch, put where the ranks of other processes find it.

use super::handover;
use super::notice::Notice;
use super::slots::{Layout, SLOTS, Slots};
use crate::data::loader::Delivery;
use crate::error::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// Slots, and the ranks that copy the same shares out of them.
pub struct Shelf {
    slots: Slots,
    /// Shares that have been put there.
    handed: u64,
    readers: Vec<Reader>,
}

/// Another process, which may have gone, or may have left the stream.
struct Reader {
    line: UnixStream,
    /// Shares that it has copied.
    copied: u64,
}

impl Shelf {
    /// Slots for one data rank's shares, without readers.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(layout: Layout) -> Result<Self> {
        Ok(Self { slots: Slots::new(layout)?, handed: 0, readers: Vec::new() })
    }

    /// Lets a rank read from the first share on. One whose process has gone is passed over: it is missed elsewhere.
    ///
    /// # Errors
    /// There is no line to be had.
    pub fn admit(&mut self, link: &UnixStream) -> Result<()> {
        let pair = UnixStream::pair();
        let (line, far) = pair.map_err(|error| Error::failed(format!("a line to another rank's process: {error}")))?;
        match handover::send(link, far, self.slots.memory()) {
            Ok(()) => self.readers.push(Reader { line, copied: 0 }),
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                return Err(Error::failed(format!("the loader's memory cannot be shared with another rank: {error}")));
            }
        }
        Ok(())
    }

    /// Hands the next share, or why there is none, to every reader, waiting until all have copied what lies in its slot.
    /// Returns whether there are readers left.
    pub fn hand(&mut self, delivery: &Delivery) -> bool {
        let notice = match delivery {
            Ok(batch) => {
                let copied = (self.handed + 1).saturating_sub(SLOTS);
                self.readers.retain_mut(|reader| reader.has_copied(copied));
                if self.readers.is_empty() {
                    return false;
                }
                self.slots.write(self.handed, batch);
                self.handed += 1;
                let (step, global_examples) = (batch.step, batch.global_examples);
                Notice::Batch { step, global_examples, examples: batch.labels.len() }
            }
            Err(error) => Notice::Failed(error.clone()),
        };
        self.tell(&notice)
    }

    /// Tells every reader that the stream is over.
    pub fn end(&mut self) {
        self.tell(&Notice::Over);
    }

    fn tell(&mut self, notice: &Notice) -> bool {
        let Ok(mut text) = serde_json::to_vec(notice) else { return false };
        text.push(b'\n');
        self.readers.retain_mut(|reader| reader.line.write_all(&text).is_ok());
        !self.readers.is_empty()
    }
}

impl Reader {
    /// Waits until the reader has copied so many shares; whether it is still there.
    fn has_copied(&mut self, shares: u64) -> bool {
        let mut answers = [0; SLOTS as usize];
        while self.copied < shares {
            match self.line.read(&mut answers) {
                Ok(0) => return false,
                Ok(count) => self.copied += count as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

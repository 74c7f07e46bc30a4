//! A file that grows by whole pieces. Of a piece that does not fit on the disk nothing stays, so that what comes after it
//! can be read once there is room again.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// A file that grows.
pub struct Appender {
    file: File,
    /// The length of all whole pieces.
    length: u64,
    /// Whether a part of a piece lies behind them.
    torn: bool,
}

impl Appender {
    /// Goes on behind the first `length` bytes of a file, which are there.
    pub fn new(file: File, length: u64) -> Self {
        Self { file, length, torn: false }
    }

    /// Writes a piece behind the others.
    ///
    /// # Errors
    /// It is not there, not even a part of it.
    pub fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.mend()?;
        let written = self.file.write_all(piece);
        match written {
            Ok(()) => self.length += piece.len() as u64,
            Err(_) => {
                self.torn = true;
                // If this fails too, it is tried again before the next piece.
                let _ = self.mend();
            }
        }
        written
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            self.torn = false;
        }
        Ok(())
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

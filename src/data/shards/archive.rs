//! The members of a tar archive, found by their headers alone: these are read by position, and what lies between is passed over.
//!
//! The crate `tar` knows the fields of a header. Its own reader takes as much memory for a long name as an archive asks for,
//! so the way from header to header is ours, and bounded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use tar::{EntryType, Header, PaxExtensions};

/// Headers and contents begin at multiples of this.
const BLOCK: u64 = 512;
/// The most bytes that are read to learn a member's name: systems have paths of 4 KiB at most, and attributes beside it.
const MOST_ABOUT: u64 = 1 << 16;

/// A file in an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path, as it is written there.
    pub name: Vec<u8>,
    /// Whether it is a plain file, and no folder, link or device.
    pub is_file: bool,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Where its content begins.
    pub offset: u64,
    /// The bytes of its content: all of them are there.
    pub bytes: u64,
}

/// The members of an archive, one after the other. After an error, which ends a sentence that begins with the archive's name,
/// there are no more.
pub struct Members<'a> {
    file: &'a File,
    length: u64,
    /// Where the next header is; `None`: there is none.
    next: Option<u64>,
}

/// What extensions said of the member that follows.
#[derive(Default)]
struct About {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
}

impl<'a> Members<'a> {
    /// Those of an archive of so many bytes.
    pub fn of(file: &'a File, length: u64) -> Self {
        Self { file, length, next: Some(0) }
    }

    /// The next member, or none at the end.
    fn advance(&mut self) -> Result<Option<Member>, String> {
        let mut about = About::default();
        while let Some(at) = self.next.take() {
            let Some(header) = self.header(at)? else { break };
            let kind = header.entry_type();
            let written = header.entry_size().map_err(|_| format!("has a damaged header at byte {at}"))?;
            let extends = kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions();
            let bytes = if extends { written } else { about.bytes.unwrap_or(written) };
            let offset = at + BLOCK;
            let end = offset.checked_add(bytes).filter(|&end| end <= self.length);
            let end = end.ok_or_else(|| format!("is cut short: what begins at byte {at} has no end"))?;
            self.next = Some(end.next_multiple_of(BLOCK));
            match kind {
                EntryType::GNULongName => about.name = Some(ended_by_zero(self.about(offset, bytes)?)),
                EntryType::XHeader => self.about(offset, bytes).map(|text| about.learn(&text))?,
                EntryType::GNULongLink | EntryType::XGlobalHeader => {}
                _ => {
                    let name = about.name.take().unwrap_or_else(|| header.path_bytes().into_owned());
                    let (is_file, is_folder) = (kind.is_file() || kind == EntryType::Continuous, kind.is_dir());
                    return Ok(Some(Member { name, is_file, is_folder, offset, bytes }));
                }
            }
        }
        Ok(None)
    }

    /// The header at a place; none where the archive ends, with or without the empty block that should say so.
    fn header(&self, at: u64) -> Result<Option<Header>, String> {
        let mut block = [0; BLOCK as usize];
        match self.file.read_exact_at(&mut block, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && at >= self.length => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(format!("is cut short in the header at byte {at}"));
            }
            read => read.map_err(|error| format!("cannot be read: {error}"))?,
        }
        if block == [0; BLOCK as usize] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err(format!("has no header where one should be, at byte {at}"));
        }
        Ok(Some(header.clone()))
    }

    /// What an extension holds.
    fn about(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, String> {
        if bytes > MOST_ABOUT {
            return Err(format!("has a name or attributes of {bytes} bytes, at byte {offset}"));
        }
        let mut content = vec![0; bytes as usize];
        self.file.read_exact_at(&mut content, offset).map_err(|error| format!("cannot be read: {error}"))?;
        Ok(content)
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl About {
    /// Takes what matters here from the attributes of POSIX.1-2001 (pax); damaged ones say nothing.
    fn learn(&mut self, text: &[u8]) {
        for attribute in PaxExtensions::new(text).flatten() {
            match attribute.key() {
                Ok("path") => self.name = Some(attribute.value_bytes().to_vec()),
                Ok("size") => self.bytes = attribute.value().ok().and_then(|value| value.parse().ok()),
                _ => {}
            }
        }
    }
}

fn ended_by_zero(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

/// The sum of a header's bytes, those of the sum itself counted as spaces.
fn checksum(block: &[u8; BLOCK as usize]) -> u32 {
    const ITSELF: std::ops::Range<usize> = 148..156;
    let value = |(at, &byte): (usize, &u8)| if ITSELF.contains(&at) { u32::from(b' ') } else { u32::from(byte) };
    block.iter().enumerate().map(value).sum()
}

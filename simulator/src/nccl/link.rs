//! A connection to one other rank of one communicator, and the frames that go over it.

use super::deadlock::Probe;
use super::header::Header;
use crate::sync::lock;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

/// The two kinds of bytes. They arrive apart from each other, because a rank may carry out a collective before a message
/// that the other has sent already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Bytes of collectives.
    Collective,
    /// Bytes of sends.
    Message,
}

/// What goes from one rank to another.
#[derive(Debug)]
pub enum Frame {
    /// The other rank has come to an operation.
    Header(Header),
    /// A part of an operation's bytes.
    Bytes(Channel, Vec<u8>),
    /// A question who waits for whom.
    Probe(Probe),
    /// The other rank broke a rule, or found one broken.
    Broken(String),
    /// The other rank has destroyed its communicator.
    Goodbye,
}

/// The first byte of a frame.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Header = 1,
    Collective = 2,
    Message = 3,
    Probe = 4,
    Broken = 5,
    Goodbye = 6,
}

/// A connection's writing side.
pub struct Link {
    socket: UnixStream,
    /// Frames are written whole.
    writing: Mutex<()>,
}

impl Link {
    /// The writing side of a socket.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, writing: Mutex::new(()) }
    }

    /// Another handle of the socket, to read from.
    pub fn reading_side(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// Sends a part of an operation's bytes. Blocks while the other rank's thread that reads is behind.
    pub fn send_bytes(&self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let tag = match channel {
            Channel::Collective => Tag::Collective,
            Channel::Message => Tag::Message,
        };
        self.send_tagged(tag, bytes)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &Frame) -> io::Result<()> {
        match frame {
            Frame::Header(header) => self.send_tagged(Tag::Header, &header.encode()),
            Frame::Bytes(channel, bytes) => self.send_bytes(*channel, bytes),
            Frame::Probe(probe) => self.send_tagged(Tag::Probe, &probe.encode()),
            Frame::Broken(sentence) => self.send_tagged(Tag::Broken, sentence.as_bytes()),
            Frame::Goodbye => self.send_tagged(Tag::Goodbye, &[]),
        }
    }

    fn send_tagged(&self, tag: Tag, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut start = [tag as u8, 0, 0, 0, 0];
        start[1..].copy_from_slice(&length.to_ne_bytes());
        let _whole = lock(&self.writing);
        write_all(&self.socket, &start)?;
        write_all(&self.socket, payload)
    }

    /// Nothing more is sent; what is on its way arrives, and what the other still sends is taken in.
    pub fn finish(&self) {
        // It may be cut already, from the other side.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection at once, also under threads that are reading or writing.
    pub fn cut(&self) {
        // As above.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Reads the next frame; `None` where the other side is gone.
pub fn receive(socket: &mut UnixStream) -> Option<Frame> {
    let mut start = [0; 5];
    socket.read_exact(&mut start).ok()?;
    let length = u32::from_ne_bytes([start[1], start[2], start[3], start[4]]) as usize;
    let mut payload = Vec::with_capacity(length);
    socket.take(length as u64).read_to_end(&mut payload).ok()?;
    if payload.len() < length {
        return None;
    }
    match start[0] {
        tag if tag == Tag::Header as u8 => Header::decode(&payload).map(Frame::Header),
        tag if tag == Tag::Collective as u8 => Some(Frame::Bytes(Channel::Collective, payload)),
        tag if tag == Tag::Message as u8 => Some(Frame::Bytes(Channel::Message, payload)),
        tag if tag == Tag::Probe as u8 => Probe::decode(&payload).map(Frame::Probe),
        tag if tag == Tag::Broken as u8 => Some(Frame::Broken(String::from_utf8_lossy(&payload).into_owned())),
        tag if tag == Tag::Goodbye as u8 => Some(Frame::Goodbye),
        _ => None,
    }
}

/// Writes all bytes. A peer that is gone gives an error, never a signal: the program may not have turned it off.
pub fn write_all(socket: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: reads no more than the slice has.
        let count = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(count) {
            Ok(count) => bytes = &bytes[count..],
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

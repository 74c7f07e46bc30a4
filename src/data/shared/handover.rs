//! Open files on their way to another process. Neither the memory of a stream nor its lines have a name by which anyone
//! could find them, or which would be left when a process is killed.

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Sends a line and memory.
///
/// # Errors
/// The other process has gone, or what else the system reports.
pub fn send(link: &UnixStream, line: impl AsFd, memory: impl AsFd) -> io::Result<()> {
    let files = [line.as_fd(), memory.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    // Files travel with at least one byte.
    retry_on_intr(|| sendmsg(link, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives a line and memory, waiting as long as the link's read timeout.
///
/// # Errors
/// The other process has gone (`UnexpectedEof`), or has sent nothing in time (`WouldBlock`), or what else the system reports.
pub fn receive(link: &UnixStream) -> io::Result<(UnixStream, OwnedFd)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    retry_on_intr(|| recvmsg(link, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut files = control
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(files) = message { Some(files) } else { None })
        .flatten();
    match (files.next(), files.next()) {
        (Some(line), Some(memory)) => Ok((UnixStream::from(line), memory)),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

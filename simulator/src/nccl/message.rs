//! How sends and receives move. Those of one group make progress independently of each other: whichever peer is there
//! first is served first.

use super::batch::{Batch, Planned};
use super::deadlock::Need;
use super::exchange::Stopped;
use super::header::{Header, Lane};
use super::inbound::Inbound;
use super::link::Channel;
use super::result::{Failure, NcclResult};
use crate::cuda::memory::{CHUNK, Range};

/// Carries out the sends and receives of one group.
pub fn carry_out(batch: &Batch, planned: &[&Planned]) -> Result<(), Stopped> {
    to_oneself(batch, planned)?;
    let mut messages: Vec<Message> = planned
        .iter()
        .flat_map(|planned| {
            let buffer = planned.operation.send.as_ref().or(planned.operation.receive.as_ref());
            planned.headers.iter().map(move |&(peer, header)| Message {
                peer,
                header,
                buffer,
                has_met: false,
                moved: 0,
            })
        })
        .collect();
    messages.iter().for_each(|message| batch.exchange.announce(message.peer, &message.header));
    while let Some(step) = next_step(batch, &mut messages)? {
        match step {
            Step::Send(place) => send(batch, &mut messages[place])?,
            Step::Receive(place, bytes) => receive(batch, &mut messages[place], &bytes)?,
        }
    }
    Ok(())
}

/// A send or a receive on its way.
struct Message<'a> {
    peer: usize,
    header: Header,
    /// None for a message without bytes.
    buffer: Option<&'a Range>,
    has_met: bool,
    moved: usize,
}

/// What can be done next.
enum Step {
    /// This message's peer is ready to receive it.
    Send(usize),
    /// These bytes of this message have come.
    Receive(usize, Vec<u8>),
}

impl Message<'_> {
    fn left(&self) -> usize {
        self.buffer.map_or(0, |buffer| buffer.length) - self.moved
    }

    fn is_done(&self) -> bool {
        self.has_met && self.left() == 0
    }
}

/// Waits for something to do; `None` when all is done.
fn next_step(batch: &Batch, messages: &mut [Message]) -> Result<Option<Step>, Stopped> {
    batch.exchange.until(batch.number, |inbound| {
        meet(inbound, messages);
        if let Some(step) = possible_step(inbound, messages) {
            return Ok(Some(step));
        }
        if messages.iter().all(Message::is_done) {
            return Ok(None);
        }
        let unmet = messages.iter().filter(|message| !message.has_met);
        Err(unmet.map(|message| Need { peer: message.peer, header: message.header }).collect())
    })
}

/// The messages with a peer meet in their order, and their bytes follow in that order too.
fn meet(inbound: &mut Inbound, messages: &mut [Message]) {
    for message in messages.iter_mut().filter(|message| !message.has_met) {
        let lane = message.header.lane();
        if inbound.has_met(message.peer, lane) {
            inbound.part(message.peer, lane);
            message.has_met = true;
        }
    }
}

/// Something that can be done now.
fn possible_step(inbound: &mut Inbound, messages: &[Message]) -> Option<Step> {
    let ready = messages.iter().enumerate().filter(|(_, message)| message.has_met && message.left() > 0);
    for (place, message) in ready {
        if message.header.lane() == Lane::Send {
            return Some(Step::Send(place));
        }
        if let Some(bytes) = inbound.take_part(message.peer, Channel::Message, message.left()) {
            return Some(Step::Receive(place, bytes));
        }
    }
    None
}

fn send(batch: &Batch, message: &mut Message) -> Result<(), Stopped> {
    let Some(buffer) = message.buffer else { return Ok(()) };
    let mut bytes = vec![0; CHUNK.min(buffer.length)];
    for chunk in buffer.chunks() {
        let bytes = &mut bytes[..chunk.length];
        batch.read(&chunk, bytes)?;
        batch.exchange.send_bytes(message.peer, Channel::Message, bytes);
    }
    message.moved = buffer.length;
    Ok(())
}

fn receive(batch: &Batch, message: &mut Message, bytes: &[u8]) -> Result<(), Stopped> {
    let Some(buffer) = message.buffer else { return Ok(()) };
    batch.write(&buffer.part(message.moved, bytes.len()), bytes)?;
    message.moved += bytes.len();
    Ok(())
}

/// What a rank sends to itself, it must receive in the same group.
fn to_oneself(batch: &Batch, planned: &[&Planned]) -> Result<(), Stopped> {
    let own = |is_send: bool| {
        let rank = batch.exchange.rank;
        let operations = planned.iter().map(|planned| &planned.operation);
        operations.filter(move |operation| {
            operation.peer == Some(rank) && (operation.kind == super::operation::Kind::Send) == is_send
        })
    };
    let (sends, receives): (Vec<_>, Vec<_>) = (own(true).collect(), own(false).collect());
    let alike = sends.len() == receives.len()
        && sends
            .iter()
            .zip(&receives)
            .all(|(send, receive)| send.count == receive.count && send.datatype == receive.datatype);
    if !alike {
        batch.exchange.fail(Failure::broken_rule(
            &*batch.exchange,
            NcclResult::INVALID_USAGE,
            "what a rank sends to itself is not received in the same group, in the same order, type and count",
        ));
        return Err(Stopped);
    }
    for (send, receive) in sends.iter().zip(&receives) {
        let (Some(from), Some(into)) = (&send.send, &receive.receive) else { continue };
        let mut bytes = vec![0; CHUNK.min(from.length)];
        for (from, into) in from.chunks().zip(into.chunks()) {
            let bytes = &mut bytes[..from.length];
            batch.read(&from, bytes)?;
            batch.write(&into, bytes)?;
        }
    }
    Ok(())
}

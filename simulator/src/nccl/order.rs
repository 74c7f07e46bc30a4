//! The order of operations between two devices, over all communicators. If one rank's third operation towards a peer is
//! on one communicator and the peer's third on another, the two issue in different orders: on real devices each may
//! wait for the other for ever.

use super::header::{Header, Lane};
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The two devices: this rank's and the other's.
pub type Pair = (usize, usize);

/// Which operation: the communicator's token and the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    communicator: u64,
    is_collective: bool,
    sequence: u64,
}

impl Place {
    fn of(communicator: u64, header: &Header) -> Self {
        Self { communicator, is_collective: header.lane() == Lane::Collective, sequence: header.sequence }
    }
}

#[derive(Default)]
struct Ledger {
    sent: Direction,
    received: Direction,
    /// After an abort the two sides' numbers may differ for good reason.
    is_given_up: bool,
}

/// The operations in one direction: those that only one side is known to have issued.
#[derive(Default)]
struct Direction {
    issued: u64,
    mine: BTreeMap<u64, Place>,
    theirs: BTreeMap<u64, Place>,
}

static LEDGERS: Mutex<BTreeMap<Pair, Ledger>> = Mutex::new(BTreeMap::new());

/// Numbers an operation of this rank that is put on a stream now: its header gets the numbers. Gives the number at which
/// the other side did something else.
pub fn issue(pair: Pair, communicator: u64, header: &mut Header) -> Result<(), u64> {
    let mut ledgers = lock(&LEDGERS);
    let ledger = ledgers.entry(pair).or_default();
    if ledger.is_given_up {
        return Ok(());
    }
    let place = Place::of(communicator, header);
    let lane = header.lane();
    let mut compared = Ok(());
    if lane != Lane::Receive {
        header.sent = ledger.sent.issue();
        compared = ledger.sent.mine(header.sent, place);
    }
    if lane != Lane::Send {
        header.received = ledger.received.issue();
        compared = compared.and(ledger.received.mine(header.received, place));
    }
    compared
}

/// Takes note of an operation of the other rank. Gives the number at which this side did something else.
pub fn arrive(pair: Pair, communicator: u64, header: &Header) -> Result<(), u64> {
    let mut ledgers = lock(&LEDGERS);
    let ledger = ledgers.entry(pair).or_default();
    if ledger.is_given_up {
        return Ok(());
    }
    let place = Place::of(communicator, header);
    // What the other sends is what this side receives.
    let sent = ledger.received.theirs(header.sent, place);
    sent.and(ledger.sent.theirs(header.received, place))
}

/// After an abort the two sides may have issued different numbers of operations: no more comparison of this pair.
pub fn give_up(pair: Pair) {
    let mut ledgers = lock(&LEDGERS);
    *ledgers.entry(pair).or_default() = Ledger { is_given_up: true, ..Ledger::default() };
}

impl Direction {
    fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    fn mine(&mut self, number: u64, place: Place) -> Result<(), u64> {
        match self.theirs.remove(&number) {
            Some(other) if other != place => Err(number),
            Some(_) => Ok(()),
            None => {
                self.mine.insert(number, place);
                Ok(())
            }
        }
    }

    fn theirs(&mut self, number: u64, place: Place) -> Result<(), u64> {
        if number == 0 {
            return Ok(());
        }
        match self.mine.remove(&number) {
            Some(own) if own != place => Err(number),
            Some(_) => Ok(()),
            None => {
                self.theirs.insert(number, place);
                Ok(())
            }
        }
    }
}

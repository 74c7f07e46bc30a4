//! When a rank did what in a call, for the accounts of a step.

use crate::clock::Moment;

/// A call on one rank. Between `arrived` and `asked` the rank was free to do other things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// What it puts in was on its way.
    pub arrived: Moment,
    /// It had nothing left to do before it needs what the call brings.
    pub asked: Moment,
    /// All that the call brings was there: every rank of the group had arrived, and what they put in had travelled. It
    /// may be long before anyone asked for it.
    pub came: Moment,
    /// It went on with what the call brought.
    pub done: Moment,
}

impl Timing {
    /// While the call was under way and the rank did not yet wait for it.
    pub fn in_passing(&self) -> (Moment, Moment) {
        (self.arrived, self.asked.min(self.came).max(self.arrived))
    }
}

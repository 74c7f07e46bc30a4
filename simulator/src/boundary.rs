//! The C boundary: nothing unwinds over it, every call is traced, and places for results are checked.

use crate::rules;
use crate::trace::Line;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result type of an interface: `CUresult` or `ncclResult_t`.
pub trait Outcome: Copy {
    /// All went well.
    const SUCCESS: Self;
    /// The simulator itself has a mistake.
    const DEFECT: Self;
    /// A place for a result is null.
    const NULL: Self;

    /// The code's name in the interface's header.
    fn name(self) -> &'static str;
}

/// Carries out one call of the interface.
pub fn call<R: Outcome>(name: &'static str, body: impl FnOnce(&mut Line) -> Result<(), R>) -> R {
    let mut line = Line::call(name);
    let result = match catch_unwind(AssertUnwindSafe(|| body(&mut line))) {
        Ok(Ok(())) => R::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => {
            rules::say(&format!("simulator: {name}: the simulator itself has a mistake here (panic above)"));
            R::DEFECT
        }
    };
    line.result(result.name());
    result
}

/// A place for a result, as C functions are given one. Only C callers can make one, and they vouch for it: it is null or
/// points to memory that may be written to.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the result.
    pub fn set<R: Outcome>(self, value: T) -> Result<(), R> {
        if self.0.is_null() {
            return Err(R::NULL);
        }
        // SAFETY: not null, and the caller vouches for the rest. C callers need not align structs as Rust does.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes several results, one after the other.
    pub fn set_all<R: Outcome>(self, values: impl Iterator<Item = T>) -> Result<(), R> {
        if self.0.is_null() {
            return Err(R::NULL);
        }
        for (place, value) in values.enumerate() {
            // SAFETY: as above; the caller vouches for as many places as the call is about.
            unsafe { self.0.add(place).write_unaligned(value) };
        }
        Ok(())
    }
}

impl Out<c_char> {
    /// Writes a text with its end mark, as much of it as the caller has room for.
    pub fn set_text<R: Outcome>(self, text: &str, room: i32) -> Result<(), R> {
        let room = usize::try_from(room).ok().filter(|&room| room > 0).ok_or(R::NULL)?;
        let kept = text.bytes().take(room - 1).map(|byte| byte as c_char);
        self.set_all(kept.chain(std::iter::once(0)))
    }
}

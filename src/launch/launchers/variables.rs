//! Reading a launcher's variables. Whatever is wrong with one is said in a sentence that names it, the launcher and what
//! to do.

use super::{Described, Launcher};
use crate::error::{Error, Result};
use crc32fast::hash;

/// The most ranks of a run.
const MOST_RANKS: usize = 1 << 20;
/// The number of ports, and so the first that there is not.
const PORTS: usize = 1 << 16;
/// Where ranks meet if the launcher has no name for the run: torch's own default.
const DEFAULT_PORT: u16 = 29_500;
/// Ports that follow from the name of a run: below those that systems give to whoever asks for any.
const DERIVED_PORTS: (u16, u32) = (15_000, 10_000);

/// The variables of an environment.
pub struct Variables<'v> {
    lookup: &'v dyn Fn(&str) -> Option<String>,
}

impl<'v> Variables<'v> {
    pub fn new(lookup: &'v dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup }
    }

    /// The value of a variable that is set to something.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The first of some names that is set.
    pub fn first_of<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// These variables, read for what a launcher says in them.
    pub fn of(&self, launcher: Launcher) -> Reader<'_> {
        Reader { variables: self, launcher }
    }
}

/// Reads what one launcher says.
pub struct Reader<'v> {
    variables: &'v Variables<'v>,
    launcher: Launcher,
}

impl Reader<'_> {
    pub fn needed(&self, name: &str) -> Result<String> {
        self.variables.get(name).ok_or_else(|| self.wrong(&format!("{name} is not set")))
    }

    /// A whole number below a bound.
    pub fn number(&self, name: &str, bound: usize) -> Result<usize> {
        let text = self.needed(name)?;
        let number = text.parse().ok().filter(|number| *number < bound);
        number.ok_or_else(|| {
            let last = bound.saturating_sub(1);
            self.wrong(&format!("{name} is {text:?}, not a number from 0 to {last}"))
        })
    }

    /// The number of ranks.
    pub fn size(&self, name: &str) -> Result<usize> {
        self.positive(name, MOST_RANKS)
    }

    /// A whole number from 1 to the most that it may be.
    pub fn positive(&self, name: &str, most: usize) -> Result<usize> {
        match self.number(name, most + 1) {
            Ok(0) => Err(self.wrong(&format!("{name} is 0"))),
            read => read,
        }
    }

    /// The number that a variable holds, or a default where it is not set.
    pub fn number_or(&self, name: &str, bound: usize, default: usize) -> Result<usize> {
        if self.variables.has(name) { self.number(name, bound) } else { Ok(default) }
    }

    /// `MASTER_PORT`, or a port that follows from the name of the run, so that two runs of one machine hardly meet.
    pub fn port(&self, run: Option<&str>) -> Result<u16> {
        let (first, count) = DERIVED_PORTS;
        match (self.variables.has("MASTER_PORT"), run) {
            (true, _) => self.number("MASTER_PORT", PORTS).map(|port| port as u16),
            (false, Some(run)) => Ok(first + (hash(run.as_bytes()) % count) as u16),
            (false, None) => Ok(DEFAULT_PORT),
        }
    }

    /// `MASTER_ADDR`; where all ranks are on one machine they need none to find each other.
    pub fn host(&self, one_machine: bool) -> Result<String> {
        match self.variables.get("MASTER_ADDR") {
            None if one_machine => Ok("127.0.0.1".into()),
            _ => self.needed("MASTER_ADDR"),
        }
    }

    /// A rank that this launcher describes, where nothing else is known: rank 0 serves, and the run has no name.
    pub fn described(&self, [rank, size, local_rank, local_size]: [usize; 4], host: String, port: u16) -> Described {
        Described {
            launcher: self.launcher,
            rank,
            size,
            local_rank,
            local_size,
            host,
            port,
            served: false,
            run: "none".into(),
            restart: "0".into(),
        }
    }

    /// What is wrong, with the launcher and what to do.
    pub fn wrong(&self, problem: &str) -> Error {
        self.wrong_with(problem, self.launcher.remedy())
    }

    /// The same where something else than usual is to be done.
    pub fn wrong_with(&self, problem: &str, remedy: &str) -> Error {
        let launcher = self.launcher;
        Error::usage(format!("this process was started by {launcher}, but {problem}: {remedy}"))
    }
}

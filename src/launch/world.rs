//! The run that this process is a rank of, as the program that started it says in the environment: mpt's own supervisor
//! or torchrun, which use the same names.

use super::board::Board;
use crate::error::{Error, Result};
use crate::torch::store::Store;
use std::env;
use std::time::Duration;

/// The largest port.
const LARGEST_PORT: u64 = u16::MAX as u64;

/// One rank of many, and the store in which it meets the others.
pub struct World {
    /// This rank.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// This rank among those of this machine: the number of its GPU.
    pub local_rank: usize,
    /// The number of ranks of this machine.
    pub local_size: usize,
    store: Store,
    prefix: String,
}

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
    host: String,
    port: u16,
    /// Whether rank 0 serves the store, and not the program that started the ranks.
    own_store: bool,
    /// What keeps the keys of this run apart from those of others, and of its own earlier starts.
    prefix: String,
}

impl Described {
    /// What some variables say; `None` where they speak of no rank.
    ///
    /// # Errors
    /// They speak of one, and lack something or say it in another way than numbers.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        if variable("RANK").is_none() || variable("WORLD_SIZE").is_none() {
            return Ok(None);
        }
        let needed = |name: &str| {
            variable(name).ok_or_else(|| {
                Error::usage(format!("RANK and WORLD_SIZE are set, so this is a rank of many, but {name} is not set"))
            })
        };
        let number = |name: &str, below: u64| -> Result<u64> {
            let text = needed(name)?;
            let number = text.parse().ok().filter(|number| *number < below);
            number.ok_or_else(|| Error::usage(format!("{name} is {text:?}, not a number from 0 to {}", below - 1)))
        };
        let size = number("WORLD_SIZE", 1 << 20)?;
        let rank = number("RANK", size.max(1))?;
        let local_size =
            if variable("LOCAL_WORLD_SIZE").is_some() { number("LOCAL_WORLD_SIZE", size + 1)? } else { size };
        let run = variable("TORCHELASTIC_RUN_ID").unwrap_or_else(|| "none".into());
        let restart = variable("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".into());
        Ok(Some(Self {
            rank: rank as usize,
            size: size as usize,
            local_rank: number("LOCAL_RANK", local_size.max(1))? as usize,
            local_size: local_size as usize,
            host: needed("MASTER_ADDR")?,
            port: number("MASTER_PORT", LARGEST_PORT + 1)? as u16,
            own_store: variable("TORCHELASTIC_USE_AGENT_STORE").is_none_or(|value| value != "True"),
            prefix: format!("mpt/{run}/{restart}"),
        }))
    }
}

impl World {
    /// The run that the environment speaks of, if it speaks of one, with the store joined.
    ///
    /// # Errors
    /// The environment is not understood, or the store does not answer within the limit.
    pub fn from_environment(limit: Duration) -> Result<Option<Self>> {
        let Some(described) = Described::from(|name| env::var(name).ok())? else { return Ok(None) };
        let Described { rank, size, local_rank, local_size, host, port, own_store, prefix } = described;
        let store = match own_store && rank == 0 {
            true => Store::serve(&host, port, limit)?,
            false => Store::join(&host, port, limit)?,
        };
        Ok(Some(Self { rank, size, local_rank, local_size, store, prefix }))
    }

    /// What one rank found out, for all: it sets a key, and the others wait for it.
    ///
    /// # Errors
    /// What finding out reports, and the store.
    pub fn share(&self, key: &str, by: usize, find: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let key = format!("{}/{key}", self.prefix);
        if self.rank != by {
            return self.store.get(&key);
        }
        let value = find()?;
        self.store.set(&key, &value)?;
        Ok(value)
    }

    /// A connection of its own to the store of the run, which is waited for at most so long in each call.
    ///
    /// # Errors
    /// The store does not answer within the limit.
    pub fn board(&self, limit: Duration) -> Result<Board> {
        Ok(Board::new(self.store.reopened(limit)?, self.prefix.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(settings: &[(&str, &str)]) -> Result<Option<Described>> {
        Described::from(|name| settings.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned()))
    }

    const TORCHRUN: [(&str, &str); 9] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "2"),
        ("MASTER_ADDR", "10.0.0.7"),
        ("MASTER_PORT", "29400"),
        ("TORCHELASTIC_RUN_ID", "job-12"),
        ("TORCHELASTIC_RESTART_COUNT", "2"),
        ("TORCHELASTIC_USE_AGENT_STORE", "True"),
    ];

    #[test]
    fn torchruns_names_are_understood() {
        let found = described(&TORCHRUN).unwrap().unwrap();
        let expected = Described {
            rank: 3,
            size: 4,
            local_rank: 1,
            local_size: 2,
            host: "10.0.0.7".into(),
            port: 29400,
            own_store: false,
            prefix: "mpt/job-12/2".into(),
        };
        assert_eq!(found, expected);
        assert_eq!(described(&TORCHRUN[1..]).unwrap(), None);
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        let message = described(&TORCHRUN[..5]).unwrap_err().to_string();
        assert!(message.ends_with("but MASTER_PORT is not set"), "{message}");
        let mut wrong = TORCHRUN;
        wrong[0].1 = "4";
        let message = described(&wrong).unwrap_err().to_string();
        assert_eq!(message, "RANK is \"4\", not a number from 0 to 3");
    }
}

//! torch's names: torchrun and mpt's own supervisor set them all, and so may a script.

use super::variables::Variables;
use super::{Described, Launcher};
use crate::error::Result;

/// What mpt's supervisor sets for its ranks, to its process number.
pub const SUPERVISED: &str = "MPT_SUPERVISED";
/// What torchrun calls the run.
const RUN_ID: &str = "TORCHELASTIC_RUN_ID";

/// torchrun, mpt's supervisor, or a script that sets the same names.
pub fn described(variables: &Variables) -> Result<Option<Described>> {
    let launcher = match variables {
        _ if !variables.has("LOCAL_RANK") || !(variables.has("RANK") || variables.has("WORLD_SIZE")) => {
            return Ok(None);
        }
        _ if variables.has(SUPERVISED) => Launcher::Supervisor,
        _ if variables.has(RUN_ID) => Launcher::Torchrun,
        _ => Launcher::ByHand,
    };
    let reader = variables.of(launcher);
    let size = reader.size("WORLD_SIZE")?;
    let rank = reader.number("RANK", size)?;
    let local_size = match variables.has("LOCAL_WORLD_SIZE") {
        true => reader.positive("LOCAL_WORLD_SIZE", size)?,
        false => size,
    };
    let local_rank = reader.number("LOCAL_RANK", local_size)?;
    // A port that nobody named is one on which nobody listens.
    reader.needed("MASTER_PORT")?;
    let (host, port) = (reader.needed("MASTER_ADDR")?, reader.port(None)?);
    let name = if launcher == Launcher::Supervisor { SUPERVISED } else { RUN_ID };
    let described = reader.described([rank, size, local_rank, local_size], host, port);
    Ok(Some(Described {
        served: launcher == Launcher::Supervisor
            || variables.get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True"),
        run: variables.get(name).unwrap_or(described.run),
        restart: variables.get("TORCHELASTIC_RESTART_COUNT").unwrap_or(described.restart),
        ..described
    }))
}

/// `RANK` and `WORLD_SIZE` alone: nobody said which of the machine's GPUs is this rank's.
pub fn incomplete(variables: &Variables) -> Result<Option<Described>> {
    if !variables.has("RANK") || !variables.has("WORLD_SIZE") {
        return Ok(None);
    }
    variables.of(Launcher::ByHand).needed("LOCAL_RANK").map(|_| None)
}

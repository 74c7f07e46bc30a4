//! `mpirun` and `mpiexec`: mpt does not speak MPI, it only lets these start its ranks. They tell a rank its place, but not
//! where the first one runs.

use super::variables::Variables;
use super::{Described, Launcher};
use crate::error::Result;

/// `mpirun` of Open MPI, whatever its version: 5 keeps the names of 4.
pub fn open_mpi(variables: &Variables) -> Result<Option<Described>> {
    if !variables.has("OMPI_COMM_WORLD_RANK") {
        return Ok(None);
    }
    let reader = variables.of(Launcher::OpenMpi);
    let size = reader.size("OMPI_COMM_WORLD_SIZE")?;
    let rank = reader.number("OMPI_COMM_WORLD_RANK", size)?;
    let local_size = reader.positive("OMPI_COMM_WORLD_LOCAL_SIZE", size)?;
    let local_rank = reader.number("OMPI_COMM_WORLD_LOCAL_RANK", local_size)?;
    // PMIx's name for the job, which is the same on all its ranks.
    let run = variables.get("PMIX_NAMESPACE");
    let (host, port) = (reader.host(local_size == size)?, reader.port(run.as_deref())?);
    let described = reader.described([rank, size, local_rank, local_size], host, port);
    Ok(Some(Described { run: run.unwrap_or(described.run), ..described }))
}

/// `mpiexec` with MPICH's process manager, which has no name for a run.
pub fn hydra(variables: &Variables) -> Result<Option<Described>> {
    if !variables.has("PMI_RANK") || !variables.has("MPI_LOCALRANKID") {
        return Ok(None);
    }
    let reader = variables.of(Launcher::Hydra);
    let size = reader.size("PMI_SIZE")?;
    let rank = reader.number("PMI_RANK", size)?;
    let local_size = reader.positive("MPI_LOCALNRANKS", size)?;
    let local_rank = reader.number("MPI_LOCALRANKID", local_size)?;
    let (host, port) = (reader.host(local_size == size)?, reader.port(None)?);
    Ok(Some(reader.described([rank, size, local_rank, local_size], host, port)))
}

//! What started this process: the launchers that mpt knows, each by the variables that it sets. One function each gives
//! one [`Described`], and nothing else of mpt reads these variables.
//!
//! * `variables` reading them, with one sentence for whatever is missing or contradicts itself
//! * `torch` torchrun, mpt's own supervisor, and torch's names set by hand
//! * `mpi` mpirun of Open MPI, mpiexec of MPICH and its kin
//! * `slurm` srun
//! * `kubeflow` PyTorchJob and TrainJob

mod kubeflow;
mod mpi;
mod slurm;
#[cfg(test)]
mod tests;
mod torch;
mod variables;

use crate::error::Result;
use std::fmt;
use variables::Variables;

pub use torch::SUPERVISED;

/// Who started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `mpt train --gpus N`.
    Supervisor,
    /// torchrun of PyTorch, and whatever else speaks for torchelastic.
    Torchrun,
    /// Whoever set torch's names.
    ByHand,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH, of Intel MPI and of others with MPICH's process manager.
    Hydra,
    /// Slurm's `srun`.
    Slurm,
    /// Kubeflow's PyTorchJob: one pod a rank.
    PyTorchJob,
    /// Kubeflow's TrainJob, which speaks to torchrun through PET_ names.
    TrainJob,
}

impl Launcher {
    /// How ranks are started with it, for a message that says what to do.
    fn remedy(self) -> &'static str {
        match self {
            Self::Supervisor => "start the run again with `mpt train --gpus N`",
            Self::Torchrun => "start the ranks with `torchrun --no-python --nproc-per-node N mpt train ...`",
            Self::ByHand => {
                "set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for every rank, or \
                 neither RANK nor WORLD_SIZE"
            }
            Self::OpenMpi => "start the ranks with `mpirun -np N -x MASTER_ADDR=FIRST_HOST mpt train ...`",
            Self::Hydra => "start the ranks with `mpiexec -n N -genv MASTER_ADDR FIRST_HOST mpt train ...`",
            Self::Slurm => "start the ranks with `srun --ntasks-per-node N mpt train ...`",
            Self::PyTorchJob => "`kubectl describe pod` shows what the operator set",
            Self::TrainJob => "let torchrun start the ranks of a pod: `torchrun --no-python mpt train ...`",
        }
    }
}

impl fmt::Display for Launcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Supervisor => "mpt",
            Self::Torchrun => "torchrun",
            Self::ByHand => "a launcher that sets RANK and WORLD_SIZE",
            Self::OpenMpi => "mpirun (Open MPI)",
            Self::Hydra => "mpiexec (MPICH)",
            Self::Slurm => "srun",
            Self::PyTorchJob => "Kubeflow's PyTorchJob",
            Self::TrainJob => "Kubeflow's TrainJob",
        })
    }
}

/// One rank, as its launcher describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Who started it.
    pub launcher: Launcher,
    /// This rank.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// This rank among those of this machine.
    pub local_rank: usize,
    /// The number of ranks of this machine.
    pub local_size: usize,
    /// Where the ranks meet.
    pub host: String,
    /// At which port.
    pub port: u16,
    /// Whether the launcher serves the store in which they meet. Otherwise rank 0 does.
    pub served: bool,
    /// What keeps this run apart from others: the launcher's own number or name for it.
    pub run: String,
    /// How often it was started before.
    pub restart: String,
}

/// What a launcher says in an environment, if it started this process.
type Find = fn(&Variables) -> Result<Option<Described>>;

/// The launchers in the order in which they are looked for: the one that is nearest to the process comes first, for
/// launchers start each other and pass on what they found.
///
/// 1. torch's names. mpt's supervisor, torchrun and a person's own script may run inside any of the others (a batch
///    script, a pod, a task of srun's), and none of the others sets `LOCAL_RANK`.
/// 2. Open MPI, and 3. MPICH, before Slurm: inside an allocation they start their daemons through srun, whose
///    variables every rank inherits; `SLURM_PROCID` is then the daemon's number. srun with its own support for MPI
///    sets `PMI_RANK` too, but never what Open MPI and MPICH say of a rank's place on its machine.
/// 4. Slurm, before Kubeflow only because the two do not meet.
/// 5. PyTorchJob, whose pods have `RANK`, before 6. TrainJob: a PyTorchJob sets the `PET_` names too.
/// 7. torch's names without `LOCAL_RANK`, which is an error by now.
const LAUNCHERS: [Find; 7] = [
    torch::described,
    mpi::open_mpi,
    mpi::hydra,
    slurm::described,
    kubeflow::pytorch_job,
    kubeflow::train_job,
    torch::incomplete,
];

/// The rank that this process is, as the environment describes it; `None` where no launcher started it as one.
///
/// # Errors
/// A launcher did, and what it says lacks something or contradicts itself: names the variable, the launcher and what to
/// do.
pub fn detect() -> Result<Option<Described>> {
    described(&|name| std::env::var(name).ok())
}

fn described(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Described>> {
    let variables = Variables::new(lookup);
    for launcher in LAUNCHERS {
        if let Some(found) = launcher(&variables)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Described {
    /// What the keys of this run in a store begin with, and those of no other run or start.
    pub fn prefix(&self) -> String {
        format!("mpt/{}/{}", self.run, self.restart)
    }
}

impl fmt::Display for Described {
    /// Who started the ranks, how many, and where they meet.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { launcher, size, local_size, host, port, served, run, restart, .. } = self;
        let server = if *served { "which the launcher serves" } else { "which rank 0 serves" };
        write!(formatter, "started by {launcher}: {size} rank(s), {local_size} on this machine; run {run}")?;
        if restart != "0" {
            write!(formatter, ", restart {restart}")?;
        }
        write!(formatter, "; they meet in the store at {host}:{port}, {server}")
    }
}

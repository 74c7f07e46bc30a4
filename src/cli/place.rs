//! Where the ranks of a run are: all in this process, or one here and the others in processes of their own. What the
//! ranks of one run must do alike, the first decides and the others hear of.

use super::options::{Devices, set};
use crate::comm::nccl::gpu::Gpu;
use crate::comm::nccl::library;
use crate::engine::job::threads;
use crate::engine::session::{Job, Ranks};
use crate::error::{Error, Result};
use crate::launch::meeting;
use crate::launch::world::World;
use crate::plan::Mesh;
use crate::recipe::{Layered, Precision, Recipe};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a rank looks for the store of its run.
const JOINING: Duration = Duration::from_secs(60);

/// Where the ranks are.
pub enum Place {
    /// All here, one thread each; on GPUs only one.
    Threads(Devices),
    /// One here.
    Rank(Devices, World),
    /// None here: so many are to be started, as processes.
    Nowhere(usize),
}

impl Place {
    /// Where the ranks are on these devices, as far as the environment tells; `count` tells how many are asked for.
    ///
    /// # Errors
    /// This is a rank of many, and the devices are threads of one process; or the run's store does not answer; or there
    /// are not as many GPUs.
    pub fn find(devices: Devices, count: impl FnOnce() -> Result<usize>) -> Result<Self> {
        match (devices, World::from_environment(JOINING)?) {
            (Devices::Cpu, Some(World { rank, size, .. })) if size > 1 => Err(Error::usage(format!(
                "this is rank {rank} of {size}, but CPU devices are threads of one process: start mpt without a launcher"
            ))),
            (Devices::Cpu, _) => Ok(Self::Threads(devices)),
            (devices, Some(world)) => {
                library::load()?;
                Ok(Self::Rank(devices, world))
            }
            (Devices::Simulated, None) => Ok(Self::Nowhere(count()?)),
            (Devices::Cuda, None) => match (count()?, library::gpus()) {
                (count, found) if count > found => Err(Error::usage(format!(
                    "{count} GPUs are asked for, but this machine has {found}; or use --device cpu"
                ))),
                (1, _) => Ok(Self::Threads(devices)),
                (count, _) => Ok(Self::Nowhere(count)),
            },
        }
    }

    /// Whether this process speaks for the run.
    pub fn speaks(&self) -> bool {
        !matches!(self, Self::Rank(_, world) if world.rank != 0)
    }

    /// Whether this process serves metrics for its host: the first of the host's ranks, or what starts them.
    pub fn serves(&self) -> bool {
        !matches!(self, Self::Rank(_, world) if world.local_rank != 0)
    }

    /// The ranks of this host, of so many in all.
    pub fn host_ranks(&self, ranks: usize) -> Range<usize> {
        let Self::Rank(_, world) = self else { return 0..ranks };
        let first = world.rank - world.local_rank;
        first..first + world.local_size
    }

    /// The kind of devices.
    pub fn devices(&self) -> Devices {
        match self {
            Self::Threads(devices) | Self::Rank(devices, _) => *devices,
            Self::Nowhere(_) => Devices::Simulated,
        }
    }

    /// A path that the first rank finds, or finds that there is none, on every rank.
    ///
    /// # Errors
    /// What finding it reports, and the store.
    pub fn share(&self, key: &str, find: impl FnOnce() -> Result<Option<PathBuf>>) -> Result<Option<PathBuf>> {
        let Self::Rank(_, world) = self else { return find() };
        let path = world.share(key, 0, || Ok(find()?.unwrap_or_default().as_os_str().as_bytes().to_vec()))?;
        Ok((!path.is_empty()).then(|| Path::new(OsStr::from_bytes(&path)).to_owned()))
    }

    /// Lays over settings that leave it open what the GPU is best at, and the number of ranks that were started.
    ///
    /// # Errors
    /// The settings ask for another number.
    pub fn fit(&self, layered: &mut Layered) -> Result<()> {
        if self.devices() == Devices::Cuda && layered.recipe()?.train.precision == Precision::Auto {
            let local = if let Self::Rank(_, world) = self { world.local_rank } else { 0 };
            let precision = if Gpu::new(local)?.computes_bf16()? { Precision::Bf16 } else { Precision::Fp32 };
            set(layered, "the GPU", "train.precision", Some(precision.name()))?;
        }
        self.devices().fit_own_half(layered)?;
        let Self::Rank(_, world) = self else { return Ok(()) };
        let asked = layered.recipe()?.parallel;
        if asked.devices == 0 && asked.mesh.is_none() {
            set(layered, "the ranks that were started", "parallel.devices", Some(world.size))?;
        }
        let (ranks, started) = (layered.recipe()?.layout()?.0.ranks(), world.size);
        if ranks == started {
            return Ok(());
        }
        Err(Error::usage(format!("{ranks} devices are asked for, but {started} ranks were started, one a device")))
    }

    /// Tells a job where its ranks are.
    pub fn suit(&self, job: &mut Job, recipe: &Recipe) {
        job.assignment.settings.device = self.devices().tensors(0);
        if let Self::Threads(devices) = self {
            job.devices = (0..job.devices.len()).map(|rank| devices.name(rank)).collect();
        }
        let Self::Rank(devices, world) = self else { return };
        job.assignment.settings.device = devices.tensors(world.local_rank);
        job.devices = (0..world.size).map(|rank| devices.name(rank)).collect();
        job.assignment.threads = threads(recipe, world.local_size);
        job.assignment.on_step = library::step_marker();
    }

    /// The ranks of this process, in their groups.
    ///
    /// # Errors
    /// The GPU cannot be used, or the other ranks did not come within the limit.
    pub fn ranks(&self, mesh: Mesh, limit: Duration) -> Result<Ranks> {
        let Self::Rank(_, world) = self else { return Ok(Ranks::All) };
        let gpu = Gpu::new(world.local_rank)?;
        Ok(Ranks::One(world.rank, meeting::groups(world, mesh, &gpu, limit)?))
    }
}

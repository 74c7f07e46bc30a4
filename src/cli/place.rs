//! Where the ranks of a run are: all in this process, or one here and the others in processes of their own. What the
//! ranks of one run must do alike, the first decides and the others hear of.

use super::declaration::declaration;
use super::options::{Devices, Which, set};
use crate::comm::nccl::gpu::{self, Gpu};
use crate::comm::nccl::library;
use crate::data::Supply;
use crate::engine::job;
use crate::engine::memory::Ask;
use crate::engine::session::{Grouped, Job};
use crate::error::{Error, Result};
use crate::launch::board::Board;
use crate::launch::heartbeat::Heartbeat;
use crate::launch::launchers::{Described, Launcher};
use crate::launch::peers::Peers;
use crate::launch::watchdog::{Watch, Watchdog, council};
use crate::launch::world::World;
use crate::launch::{agreement, environment, host, meeting, threads};
use crate::plan::Mesh;
use crate::recipe::settings::ParallelSettings;
use crate::recipe::{Layered, Precision, Recipe};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tch::Device;

/// The most CPU devices of a run: each is a thread with its own copy of what it holds.
const MOST_CPU_DEVICES: usize = 64;

/// How long a rank looks for the store of its run where the settings, which say it, cannot be read.
const MEETING: Duration = Duration::from_secs(60);

/// Where the ranks are.
pub enum Place {
    /// All here, one thread each; on GPUs only one.
    Threads(Devices),
    /// One here, on the GPU of this number.
    Rank(Devices, Arc<World>, usize),
    /// None here: so many are to be started, as processes.
    Nowhere(usize),
}

impl Place {
    /// Where the ranks are: this process is the one that a launcher described, or no launcher started it. `meeting` tells
    /// how long ranks have to come together, and `count` how many are asked for.
    ///
    /// # Errors
    /// This is a rank of many, and the devices are threads of one process; or the run's store does not answer; or there
    /// are not as many GPUs, or not as many ranks on this machine, as are asked for.
    pub fn find(
        who: Option<Described>,
        wish: &Which,
        meeting: impl FnOnce() -> Result<Duration>,
        count: impl FnOnce() -> Result<usize>,
    ) -> Result<Self> {
        let who = match (who, wish.devices()) {
            (None, devices) => return Self::alone(devices?, count),
            (Some(who), Ok(Devices::Cpu)) if who.size == 1 => {
                check_count(&who, wish)?;
                return Ok(Self::Threads(Devices::Cpu));
            }
            (Some(Described { rank, size, launcher, .. }), Ok(Devices::Cpu)) => {
                return Err(Error::usage(format!(
                    "this is rank {rank} of {size}, started by {launcher}, but CPU devices are threads of one process: \
                     start mpt without a launcher"
                )));
            }
            (Some(who), _) => who,
        };
        // Whatever else is wrong is found after the others can be told, so that none of them waits.
        let world = World::join(who, meeting().unwrap_or(MEETING))?;
        let found = wish.devices().and_then(|devices| {
            check_count(&world.who, wish)?;
            library::load()?;
            let gpu = match devices {
                // All GPUs of a rehearsal are on one machine, whatever machines its launcher plays.
                Devices::Simulated => world.who.rank,
                _ => gpu_of(&world.who, library::gpus())?,
            };
            Ok((devices, gpu))
        });
        match found {
            Ok((devices, gpu)) => Ok(Self::Rank(devices, Arc::new(world), gpu)),
            Err(error) => {
                world.fail(&error);
                Err(error)
            }
        }
    }

    /// Where the ranks are of a run that no launcher started.
    fn alone(devices: Devices, count: impl FnOnce() -> Result<usize>) -> Result<Self> {
        match devices {
            Devices::Cpu => Ok(Self::Threads(devices)),
            Devices::Simulated => Ok(Self::Nowhere(count()?)),
            Devices::Cuda => match (count()?, library::gpus()) {
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
        !matches!(self, Self::Rank(_, world, _) if world.who.rank != 0)
    }

    /// Whether this process serves metrics for its host: the first of the host's ranks, or what starts them.
    pub fn serves(&self) -> bool {
        !matches!(self, Self::Rank(_, world, _) if world.who.local_rank != 0)
    }

    /// Whether any of the first `ranks` ranks is in this process.
    pub fn has_any_of(&self, ranks: usize) -> bool {
        !matches!(self, Self::Rank(_, world, _) if world.who.rank >= ranks)
    }

    /// The kind of devices.
    pub fn devices(&self) -> Devices {
        match self {
            Self::Threads(devices) | Self::Rank(devices, ..) => *devices,
            Self::Nowhere(_) => Devices::Simulated,
        }
    }

    /// Who started the ranks, if that was not mpt.
    pub fn launched(&self) -> Option<&Described> {
        match self {
            Self::Rank(_, world, _) if world.who.launcher != Launcher::Supervisor => Some(&world.who),
            _ => None,
        }
    }

    /// The number of ranks that were started, if a launcher did that.
    pub fn started(&self) -> Option<usize> {
        if let Self::Rank(_, world, _) = self { Some(world.who.size) } else { None }
    }

    /// Tells the other ranks what stopped this one.
    pub fn fail(&self, error: &Error) {
        if let Self::Rank(_, world, _) = self {
            world.fail(error);
        }
    }

    /// Compares with the other ranks what each is about to do.
    ///
    /// # Errors
    /// They differ, or some have not come, or failed.
    pub fn agree(&self, layered: &Layered, job: &Job) -> Result<()> {
        let Self::Rank(_, world, _) = self else { return Ok(()) };
        agreement::agree(world, &declaration(layered, job)?)
    }

    /// Gives and watches for signs of life from now on. mpt's supervisor sees its ranks' ends by itself.
    ///
    /// # Errors
    /// The store's.
    pub fn heartbeat(&self, parallel: &ParallelSettings) -> Result<Option<Heartbeat>> {
        match self {
            Self::Rank(_, world, _) if self.launched().is_some() => {
                Heartbeat::start(Arc::clone(world), parallel.timeout).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A path that the first rank finds, or finds that there is none, on every rank.
    ///
    /// # Errors
    /// What finding it reports, and the store.
    pub fn share(&self, key: &str, find: impl FnOnce() -> Result<Option<PathBuf>>) -> Result<Option<PathBuf>> {
        let Self::Rank(_, world, _) = self else { return find() };
        let path = world.share(key, 0, || Ok(find()?.unwrap_or_default().as_os_str().as_bytes().to_vec()))?;
        Ok((!path.is_empty()).then(|| Path::new(OsStr::from_bytes(&path)).to_owned()))
    }

    /// Lays over settings that leave it open what the GPU is best at.
    ///
    /// # Errors
    /// The settings are not sound, or the driver's.
    pub fn fit(&self, layered: &mut Layered) -> Result<()> {
        if self.devices() == Devices::Cuda && layered.recipe()?.train.precision == Precision::Auto {
            let gpu = if let Self::Rank(_, _, gpu) = self { *gpu } else { 0 };
            let precision = if Gpu::new(gpu)?.computes_bf16()? { Precision::Bf16 } else { Precision::Fp32 };
            set(layered, "the GPU", "train.precision", Some(precision.name()))?;
        }
        self.devices().fit_own_half(layered)
    }

    /// Sees that so many ranks can be where they are.
    ///
    /// # Errors
    /// A launcher started another number, or they are more threads than one machine may have.
    pub fn check_ranks(&self, ranks: usize) -> Result<()> {
        match self.started() {
            Some(started) if started != ranks => Err(Error::usage(format!(
                "{ranks} devices are asked for, but {started} ranks were started, one a device"
            ))),
            Some(_) => Ok(()),
            None => check_threads(ranks),
        }
    }

    /// Tells a job where its ranks are.
    pub fn suit(&self, job: &mut Job, recipe: &Recipe) {
        job.assignment.settings.device = self.tensors();
        job.assignment.memory = self.memory(job.devices.len());
        job.devices = (0..job.devices.len()).map(|rank| self.devices().name(rank)).collect();
        job.assignment.threads = self.threads(recipe, job.devices.len());
        if let Self::Rank(..) = self {
            job.assignment.on_step = library::step_marker();
        }
    }

    /// The threads of each rank of this machine, of so many ranks in all.
    pub fn threads(&self, recipe: &Recipe, ranks: usize) -> usize {
        job::threads(recipe, if let Self::Rank(_, world, _) = self { world.who.local_size } else { ranks })
    }

    /// What tells the bytes in use on the device of a rank of this process; threads on the CPU hold theirs together.
    fn memory(&self, ranks: usize) -> Option<Ask> {
        match (self.devices(), self) {
            (Devices::Cuda, _) => Some(gpu::memory_in_use),
            (_, Self::Rank(..)) => Some(environment::memory),
            _ => (ranks == 1).then_some(environment::memory as Ask),
        }
    }

    /// Where the tensors live of the ranks of this process.
    pub fn tensors(&self) -> Device {
        self.devices().tensors(if let Self::Rank(_, _, gpu) = self { *gpu } else { 0 })
    }

    /// Waits, however long that takes, until the first rank has come to the same point of the run, which no other is
    /// called.
    ///
    /// # Errors
    /// A rank failed.
    pub fn follow(&self, point: &str) -> Result<()> {
        if let Self::Rank(_, world, _) = self { world.follow(point) } else { Ok(()) }
    }

    /// The other processes of a run, if there are some and all see its folder. Every rank must ask.
    ///
    /// # Errors
    /// The store does not answer, or a rank failed.
    pub fn peers(&self, folder: &Path) -> Result<Option<Peers>> {
        match self {
            Self::Rank(_, world, _) if world.who.size > 1 => Peers::sharing(world, folder),
            _ => Ok(None),
        }
    }

    /// The ranks of a mesh that are in this process, in their groups and with where their batches come from, and what watches
    /// their calls, none of which may keep a rank waiting longer than `limit`. `purpose` keeps these groups apart from others of the run, and `folder` the report
    /// of a call that does not end.
    ///
    /// # Errors
    /// The GPU cannot be used, or the other ranks cannot be reached, or did not come within the limit.
    pub fn grouped(
        &self,
        purpose: &str,
        mesh: Mesh,
        limit: Duration,
        folder: Option<PathBuf>,
    ) -> Result<(Grouped, Watchdog)> {
        let (supply, groups) = match self {
            Self::Rank(_, world, gpu) => {
                let groups = meeting::groups(world, purpose, mesh, &Gpu::new(*gpu)?, limit)?;
                (host::supply(world, purpose, mesh.ranks(), limit)?, vec![(world.who.rank, groups)])
            }
            _ => (Supply::Here, threads::groups(mesh).into_iter().enumerate().collect()),
        };
        let watch = Watch { limit, folder, exits: true };
        let (groups, watchdog) = Watchdog::over(groups, mesh, watch, self.boards()?)?;
        Ok((Grouped { supply, groups, interrupts: watchdog.interrupts() }, watchdog))
    }

    /// Where the ranks are processes, this one's ways to tell the others that the run does not go on: one to listen, one
    /// to speak.
    ///
    /// # Errors
    /// The store does not answer.
    fn boards(&self) -> Result<Option<[Board; 2]>> {
        let Self::Rank(_, world, _) = self else { return Ok(None) };
        Ok(Some([world.board(council::SPEAKING)?, world.board(council::SPEAKING)?]))
    }
}

/// Sees that so many devices can be threads of one process.
///
/// # Errors
/// They are more than one machine may have.
pub fn check_threads(devices: usize) -> Result<()> {
    match devices {
        0..=MOST_CPU_DEVICES => Ok(()),
        _ => Err(Error::usage(format!(
            "{devices} CPU devices are more than the {MOST_CPU_DEVICES} that one machine may have"
        ))),
    }
}

/// `--gpus` counts the devices of a machine, and under a launcher those are the ranks that it started there.
fn check_count(who: &Described, wish: &Which) -> Result<()> {
    let Described { launcher, local_size, .. } = who;
    match wish.count() {
        Some(asked) if asked != *local_size => Err(Error::usage(format!(
            "--gpus {asked}: {launcher} started {local_size} rank(s) on this machine; leave --gpus out, or let it start \
             {asked}"
        ))),
        _ => Ok(()),
    }
}

/// The number of a rank's GPU. A launcher may show each rank no GPU but its own, as `srun --gpus-per-task 1` does.
fn gpu_of(who: &Described, visible: usize) -> Result<usize> {
    let Described { launcher, rank, local_rank, local_size, .. } = who;
    match visible {
        1 => Ok(0),
        _ if *local_rank < visible => Ok(*local_rank),
        _ => Err(Error::usage(format!(
            "rank {rank} is number {local_rank} of the {local_size} that {launcher} started on this machine, which shows \
             {visible} GPUs (CUDA_VISIBLE_DEVICES): start one rank for each"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_uses_the_gpu_of_its_place_or_the_only_one_that_it_sees() {
        let who = Described {
            launcher: Launcher::Slurm,
            rank: 7,
            size: 8,
            local_rank: 3,
            local_size: 4,
            host: "a".into(),
            port: 1,
            served: false,
            run: "1.0".into(),
            restart: "0".into(),
        };
        assert_eq!(gpu_of(&who, 4).unwrap(), 3);
        assert_eq!(gpu_of(&who, 1).unwrap(), 0);
        let message = gpu_of(&who, 2).unwrap_err().to_string();
        assert!(
            message.starts_with("rank 7 is number 3 of the 4 that srun started on this machine, which"),
            "{message}"
        );
    }
}

//! An NCCL communicator: non-blocking, every call polled to its end, and taken down without a panic.

use super::gpu::Gpu;
use crate::error::{Error, Result};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::nccl::result::{self, NcclError, NcclStatus};
use cudarc::nccl::sys::{self, ncclComm_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use tch::Kind;

/// The value that leaves a field of a configuration to NCCL: NCCL_CONFIG_UNDEF_INT.
const UNDEFINED: c_int = c_int::MIN;
/// What NCCL looks for at the start of a configuration.
const MAGIC: u32 = 0xcafe_beef;
/// The version whose configuration this is: 2.29.7, as 10000 * major + 100 * minor + patch.
const VERSION: u32 = 22_907;
/// How long the end of a run waits for a communicator to be taken down: an abort may hang (nccl#1013).
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a thread rests between two questions. NCCL and CUDA offer no wait that ends at a deadline.
const REST: Duration = Duration::from_micros(20);

/// A name by which the ranks of a group find each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId([u8; UniqueId::SIZE]);

impl UniqueId {
    /// Its bytes.
    pub const SIZE: usize = 128;

    /// A new one; the process that makes it must live until every rank has joined.
    ///
    /// # Errors
    /// NCCL's, as when it finds no network interface.
    pub fn new() -> Result<Self> {
        let id = result::get_uniqueid().map_err(|error| failed("ncclGetUniqueId", &error, ptr::null_mut()))?;
        Ok(Self(id.internal.map(|byte| byte as u8)))
    }

    /// From the bytes that another process sent.
    ///
    /// # Errors
    /// They are not as many as they should be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let id = bytes.try_into().map_err(|_| {
            Error::failed(format!("an NCCL id of {} bytes arrived where {} were due", bytes.len(), Self::SIZE))
        })?;
        Ok(Self(id))
    }

    /// To send to another process.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One rank's end of a group of GPUs.
pub struct Communicator {
    handle: Handle,
    gpu: Arc<Gpu>,
    limit: Duration,
    /// Whether a call has failed: then nothing can be expected of the communicator but to be aborted.
    broken: bool,
}

#[derive(Clone, Copy)]
struct Handle(ncclComm_t);

// SAFETY: a communicator may be used from any thread as long as it is one at a time, which `&mut` sees to.
unsafe impl Send for Handle {}

/// What a collective operation moves: values of one type from one place of the GPU's memory to another.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// The values that this rank puts in.
    pub from: CUdeviceptr,
    /// Where the result goes.
    pub to: CUdeviceptr,
    /// How many values: those put in for a gather, those of the result for a reduce-scatter.
    pub count: usize,
    /// Their type.
    pub kind: ncclDataType_t,
}

/// One side of a send or receive.
#[derive(Clone, Copy, Debug)]
pub struct Half {
    /// The values.
    pub place: CUdeviceptr,
    /// How many.
    pub count: usize,
    /// Their type.
    pub kind: ncclDataType_t,
    /// The rank of the group at the other side.
    pub peer: usize,
}

impl Communicator {
    /// Joins the group of `size` ranks with this id, waiting for all of them.
    ///
    /// # Errors
    /// NCCL's, or not every rank came within the limit.
    pub fn join(gpu: Arc<Gpu>, id: &UniqueId, rank: usize, size: usize, limit: Duration) -> Result<Self> {
        gpu.bind()?;
        let mut handle: ncclComm_t = ptr::null_mut();
        let mut config = non_blocking();
        let id = ncclUniqueId { internal: id.0.map(|byte| byte as c_char) };
        // SAFETY: `handle` and `config` are valid for writing, and NCCL is done with both when the poll below says so.
        let begun =
            unsafe { result::comm_init_rank_config(&mut handle, size as c_int, id, rank as c_int, &mut config) };
        let mut communicator = Self { handle: Handle(handle), gpu, limit, broken: false };
        communicator.complete("ncclCommInitRankConfig", begun)?;
        Ok(communicator)
    }

    /// Every rank gets what every rank puts in.
    ///
    /// # Errors
    /// NCCL's.
    pub fn all_gather(&mut self, Move { from, to, count, kind }: Move) -> Result<()> {
        let (comm, stream) = self.ready()?;
        // SAFETY: both places are memory of this GPU with room for the values, as the caller has made sure; they stay
        // so until the stream has come past the operation.
        let begun = unsafe { result::all_gather(from as *const c_void, to as *mut c_void, count, kind, comm, stream) };
        self.complete("ncclAllGather", begun)
    }

    /// Rank `r` gets the sum of everyone's `r`-th part.
    ///
    /// # Errors
    /// NCCL's.
    pub fn reduce_scatter(&mut self, Move { from, to, count, kind }: Move) -> Result<()> {
        let (comm, stream) = self.ready()?;
        let sum = sys::ncclRedOp_t::ncclSum;
        // SAFETY: as in `all_gather`.
        let begun =
            unsafe { result::reduce_scatter(from as *const c_void, to as *mut c_void, count, kind, sum, comm, stream) };
        self.complete("ncclReduceScatter", begun)
    }

    /// Every rank gets the sum of what every rank puts in.
    ///
    /// # Errors
    /// NCCL's.
    pub fn all_reduce(&mut self, Move { from, to, count, kind }: Move) -> Result<()> {
        let (comm, stream) = self.ready()?;
        let sum = sys::ncclRedOp_t::ncclSum;
        // SAFETY: as in `all_gather`.
        let begun =
            unsafe { result::all_reduce(from as *const c_void, to as *mut c_void, count, kind, sum, comm, stream) };
        self.complete("ncclAllReduce", begun)
    }

    /// Every rank gets what `root` puts in.
    ///
    /// # Errors
    /// NCCL's.
    pub fn broadcast(&mut self, Move { from, to, count, kind }: Move, root: usize) -> Result<()> {
        let (comm, stream) = self.ready()?;
        let root = root as c_int;
        // SAFETY: as in `all_gather`.
        let begun =
            unsafe { result::broadcast(from as *const c_void, to as *mut c_void, count, kind, root, comm, stream) };
        self.complete("ncclBroadcast", begun)
    }

    /// Sends and receives as one group, which NCCL carries out together: one after the other they would wait for each
    /// other for ever.
    ///
    /// # Errors
    /// NCCL's.
    pub fn send_receive(&mut self, sends: &[Half], receives: &[Half]) -> Result<()> {
        let (comm, stream) = self.ready()?;
        result::group_start().map_err(|error| self.broke("ncclGroupStart", &error))?;
        let mut outcome = Ok(());
        for &Half { place, count, kind, peer } in sends {
            // SAFETY: as in `all_gather`.
            let begun = unsafe { result::send(place as *const c_void, count, kind, peer as c_int, comm, stream) };
            outcome = outcome.and(begun.map_err(|error| self.broke("ncclSend", &error)).map(|_| ()));
        }
        for &Half { place, count, kind, peer } in receives {
            // SAFETY: as in `all_gather`.
            let begun = unsafe { result::recv(place as *mut c_void, count, kind, peer as c_int, comm, stream) };
            outcome = outcome.and(begun.map_err(|error| self.broke("ncclRecv", &error)).map(|_| ()));
        }
        // The group is ended whatever happened in it: the next one of this thread would else be a part of it.
        let ended = result::group_end();
        outcome?;
        self.complete("ncclGroupEnd", ended)
    }

    /// Asks until `done` says yes, watching for errors that NCCL meets on the way.
    ///
    /// # Errors
    /// NCCL's, the question's own, or the limit has passed.
    pub fn wait(&mut self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        loop {
            // In this order: a stream goes on behind an operation that has failed.
            let done = done()?;
            if let Err(error) = self.state() {
                self.broken = true;
                return Err(error);
            }
            if done {
                return Ok(());
            }
            self.rest(begin)?;
        }
    }

    /// The communicator and the stream, for a call of this thread.
    fn ready(&self) -> Result<(ncclComm_t, sys::cudaStream_t)> {
        self.gpu.bind()?;
        // cudarc names the driver's stream once for each of its modules; it is the same pointer.
        Ok((self.handle.0, self.gpu.travel().cu_stream().cast()))
    }

    /// Polls a call to its end: until then nothing of it need be on the stream, and an event recorded there would come
    /// too early.
    fn complete(&mut self, function: &str, begun: Result<NcclStatus, NcclError>) -> Result<()> {
        begun.map_err(|error| self.broke(function, &error))?;
        let begin = Instant::now();
        loop {
            match self.state() {
                Ok(ncclResult_t::ncclInProgress) => self.rest(begin).map_err(|error| error.within(function))?,
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.broken = true;
                    return Err(error.within(function));
                }
            }
        }
    }

    /// What NCCL says of the communicator: in progress or success.
    fn state(&self) -> Result<ncclResult_t> {
        let mut state = ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is alive, and one value is written to the place given.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.handle.0, &mut state) };
        for result in [asked, state] {
            if !matches!(result, ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress) {
                return Err(Error::failed(words(result, self.handle.0)));
            }
        }
        Ok(state)
    }

    fn rest(&mut self, begin: Instant) -> Result<()> {
        if begin.elapsed() < self.limit {
            thread::sleep(REST);
            return Ok(());
        }
        self.broken = true;
        Err(Error::PeerGone(format!("not done after {:.0?}", self.limit)))
    }

    fn broke(&mut self, function: &str, error: &NcclError) -> Error {
        self.broken = true;
        failed(function, error, self.handle.0)
    }

    /// Whether a call has failed: nothing more will come of this communicator.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}

impl Communicator {
    /// Lets the communicator be aborted when it is dropped, without regard to what is under way.
    pub fn give_up(&mut self) {
        self.broken = true;
    }
}

impl Drop for Communicator {
    /// Takes the communicator down: in good order if all went well, else without regard to the others. Either may wait
    /// for a rank that never answers, so it is done on a thread of its own, which is left behind after a while.
    fn drop(&mut self) {
        let (handle, gpu, limit, broken) = (self.handle, Arc::clone(&self.gpu), FAREWELL, self.broken);
        if handle.0.is_null() {
            return;
        }
        let (sender, done) = channel();
        let farewell = move || {
            let handle = handle;
            let _ = gpu.bind();
            // SAFETY: the handle is alive and this is its last use.
            unsafe { take_down(handle.0, broken, limit) };
            let _ = sender.send(());
        };
        if thread::Builder::new().name("farewell".into()).spawn(farewell).is_ok() {
            let _ = done.recv_timeout(FAREWELL);
        }
    }
}

/// # Safety
/// The communicator must be alive, and never be used again.
unsafe fn take_down(comm: ncclComm_t, broken: bool, limit: Duration) {
    let begin = Instant::now();
    // SAFETY: the caller's promise.
    unsafe {
        let mut state = ncclResult_t::ncclSuccess;
        let mut orderly = !broken && result::comm_finalize(comm).is_ok();
        while orderly && sys::ncclCommGetAsyncError(comm, &mut state) == ncclResult_t::ncclSuccess {
            match state {
                ncclResult_t::ncclInProgress if begin.elapsed() < limit => thread::sleep(REST),
                ncclResult_t::ncclSuccess => break,
                _ => orderly = false,
            }
        }
        let _ = if orderly { result::comm_destroy(comm) } else { result::comm_abort(comm) };
    }
}

/// NCCL has an initializer for this in its header only: size, magic, version, and every other field left to it.
fn non_blocking() -> sys::ncclConfig_t {
    sys::ncclConfig_t {
        size: mem::size_of::<sys::ncclConfig_t>(),
        magic: MAGIC,
        version: VERSION,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: ptr::null(),
        splitShare: UNDEFINED,
        trafficClass: UNDEFINED,
        commName: ptr::null(),
        collnetEnable: UNDEFINED,
        CTAPolicy: UNDEFINED,
        shrinkShare: UNDEFINED,
        nvlsCTAs: UNDEFINED,
        nChannelsPerNetPeer: UNDEFINED,
        nvlinkCentricSched: UNDEFINED,
        graphUsageMode: UNDEFINED,
        numRmaCtx: UNDEFINED,
    }
}

/// NCCL's name of a type.
///
/// # Errors
/// It is not one that mpt trains in.
pub fn kind(kind: Kind) -> Result<ncclDataType_t> {
    match kind {
        Kind::Half => Ok(ncclDataType_t::ncclFloat16),
        Kind::BFloat16 => Ok(ncclDataType_t::ncclBfloat16),
        Kind::Float => Ok(ncclDataType_t::ncclFloat32),
        Kind::Double => Ok(ncclDataType_t::ncclFloat64),
        other => Err(Error::failed(format!("values of {other:?} do not travel by NCCL"))),
    }
}

fn failed(function: &str, error: &NcclError, comm: ncclComm_t) -> Error {
    Error::failed(format!("{function}: {}", words(error.0, comm)))
}

/// NCCL's own words: its text for a result, and what it last said of the communicator.
fn words(result: ncclResult_t, comm: ncclComm_t) -> String {
    let text = |pointer: *const c_char| {
        // SAFETY: NCCL gives null or a text that stays, ended by a zero.
        (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().trim().to_owned())
    };
    // SAFETY: both take any value, the second a null communicator too.
    let (general, last) = unsafe { (text(sys::ncclGetErrorString(result)), text(sys::ncclGetLastError(comm))) };
    let general = general.unwrap_or_else(|| format!("{result:?}"));
    match last.filter(|last| !last.is_empty()) {
        Some(last) => format!("NCCL: {general}: {last}"),
        None => format!("NCCL: {general}"),
    }
}

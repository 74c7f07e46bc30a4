//! What the test programs have in common: a device, its null stream for computing, a stream for communication, buffers,
//! and a communicator with the other ranks.

use crate::world;
use cudarc::driver::sys::{CUdeviceptr, CUevent_flags};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result as cuda};
use cudarc::nccl::{result as nccl, sys};
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use sys::ncclDataType_t::{self as Type, *};
pub use sys::ncclRedOp_t::{ncclAvg, ncclSum};
pub use sys::ncclResult_t::{self as Code, *};

/// One rank's device and streams.
pub struct Program {
    pub rank: usize,
    pub size: usize,
    pub context: Arc<CudaContext>,
    pub compute: Arc<CudaStream>,
    pub communication: Arc<CudaStream>,
}

/// Device memory that is freed by hand: tests free it too early on purpose.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: CUdeviceptr,
    pub bytes: usize,
}

/// A communicator of this rank.
#[derive(Clone, Copy)]
pub struct Group(pub sys::ncclComm_t);

// SAFETY: a communicator may be used from another thread, though not from two at once; a test of that rule does so.
unsafe impl Send for Group {}

impl Program {
    /// On the device of the same number as the rank.
    pub fn new(rank: usize, size: usize) -> Self {
        Self::on_device(rank, size, rank)
    }

    pub fn on_device(rank: usize, size: usize, device: usize) -> Self {
        let context = CudaContext::new(device).unwrap();
        // SAFETY: every order between streams in the tests is asked for by hand.
        unsafe { context.disable_event_tracking() };
        let (compute, communication) = (context.default_stream(), context.new_stream().unwrap());
        Self { rank, size, context, compute, communication }
    }

    /// A communicator of all ranks that blocks.
    pub fn blocking(&self, name: &str) -> Group {
        let mut made = MaybeUninit::uninit();
        let id = unique_id(self.rank, name);
        // SAFETY: the place is writable; the library writes the handle.
        unsafe {
            nccl::comm_init_rank(made.as_mut_ptr(), self.size as i32, id, self.rank as i32).map_err(words).unwrap();
        }
        self.wait_for_all(name);
        // SAFETY: written above.
        Group(unsafe { made.assume_init() })
    }

    /// Waits until all ranks are here: who breaks a rule at once might otherwise be told of while others still begin.
    fn wait_for_all(&self, name: &str) {
        let path = |rank: usize| world::folder().join(format!("ready-{name}-{rank}"));
        std::fs::write(path(self.rank), "").unwrap();
        (0..self.size).for_each(|rank| until(|| path(rank).exists().then_some(())));
    }

    /// A communicator of all ranks that does not block; it has been polled for.
    pub fn non_blocking(&self, name: &str) -> Group {
        let group = self.begin(name, &mut config(0)).unwrap();
        group.polled();
        self.wait_for_all(name);
        group
    }

    /// Begins to make a communicator.
    pub fn begin(&self, name: &str, config: &mut sys::ncclConfig_t) -> Result<Group, Code> {
        self.begin_with(unique_id(self.rank, name), config)
    }

    pub fn begin_with(&self, id: sys::ncclUniqueId, config: &mut sys::ncclConfig_t) -> Result<Group, Code> {
        let mut made = MaybeUninit::uninit();
        // SAFETY: as above; the configuration lives during the call.
        unsafe {
            nccl::comm_init_rank_config(made.as_mut_ptr(), self.size as i32, id, self.rank as i32, config)
                .map_err(|error| error.0)?;
            Ok(Group(made.assume_init()))
        }
    }

    pub fn allocate(&self, bytes: usize) -> Buffer {
        self.context.bind_to_thread().unwrap();
        // SAFETY: nothing is read before it is written, unless a test wants that.
        Buffer { address: unsafe { cuda::malloc_sync(bytes) }.unwrap(), bytes }
    }

    /// Memory with these values in it, when this returns.
    pub fn filled<T>(&self, values: &[T]) -> Buffer {
        let buffer = self.allocate(size_of_val(values));
        self.upload(values, buffer);
        self.compute.synchronize().unwrap();
        buffer
    }

    /// A copy to the device on the null stream; `values` must stay as they are until it is done.
    pub fn upload<T>(&self, values: &[T], buffer: Buffer) {
        self.context.bind_to_thread().unwrap();
        // SAFETY: the simulator reads the values when the stream comes to it, and checks that they are still there.
        unsafe { cuda::memcpy_htod_async(buffer.address, values, self.compute.cu_stream()) }.unwrap();
    }

    /// A copy from the device on the null stream, waited for.
    pub fn download<T: Default + Clone>(&self, buffer: Buffer) -> Vec<T> {
        self.try_download(buffer).unwrap()
    }

    pub fn try_download<T: Default + Clone>(&self, buffer: Buffer) -> Result<Vec<T>, cuda::DriverError> {
        self.context.bind_to_thread()?;
        let mut values = vec![T::default(); buffer.bytes / size_of::<T>()];
        // SAFETY: the values live until the stream is done.
        unsafe { cuda::memcpy_dtoh_async(&mut values, buffer.address, self.compute.cu_stream()) }?;
        self.compute.synchronize()?;
        Ok(values)
    }

    pub fn event(&self) -> CudaEvent {
        self.context.new_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)).unwrap()
    }

    /// What comes on the communication stream waits for what is on the null stream.
    pub fn compute_before_communication(&self) {
        self.communication.join(&self.compute).unwrap();
    }

    /// And the other way round.
    pub fn communication_before_compute(&self) {
        self.compute.join(&self.communication).unwrap();
    }

    pub fn stream(&self) -> sys::cudaStream_t {
        self.communication.cu_stream().cast()
    }
}

impl Buffer {
    pub fn free(self) {
        // SAFETY: the simulator checks what is freed.
        unsafe { cuda::free_sync(self.address) }.unwrap();
    }

    pub fn part(self, from: usize, bytes: usize) -> Self {
        Self { address: self.address + from as u64, bytes }
    }

    pub fn get(self) -> *mut c_void {
        self.address as *mut c_void
    }
}

/// The result of a call, with `Ok(false)` for "in progress".
pub type Issued = Result<bool, Code>;

fn issued(result: Result<nccl::NcclStatus, nccl::NcclError>) -> Issued {
    result.map(|status| status == nccl::NcclStatus::Success).map_err(|error| error.0)
}

// SAFETY, for all calls below: handles and addresses are checked by the simulator, which is what is tested.
impl Group {
    pub fn all_reduce(self, program: &Program, from: Buffer, into: Buffer, count: usize, datatype: Type) -> Issued {
        let stream = program.stream();
        issued(unsafe { nccl::all_reduce(from.get(), into.get(), count, datatype, ncclSum, self.0, stream) })
    }

    pub fn all_gather(self, program: &Program, from: Buffer, into: Buffer, count: usize, datatype: Type) -> Issued {
        issued(unsafe { nccl::all_gather(from.get(), into.get(), count, datatype, self.0, program.stream()) })
    }

    pub fn reduce_scatter(self, program: &Program, from: Buffer, into: Buffer, count: usize, datatype: Type) -> Issued {
        let stream = program.stream();
        issued(unsafe { nccl::reduce_scatter(from.get(), into.get(), count, datatype, ncclSum, self.0, stream) })
    }

    pub fn broadcast(
        self,
        program: &Program,
        from: Buffer,
        into: Buffer,
        count: usize,
        datatype: Type,
        root: i32,
    ) -> Issued {
        let stream = program.stream();
        issued(unsafe { nccl::broadcast(from.get(), into.get(), count, datatype, root, self.0, stream) })
    }

    pub fn reduce(
        self,
        program: &Program,
        from: Buffer,
        into: Buffer,
        count: usize,
        datatype: Type,
        root: i32,
    ) -> Issued {
        let stream = program.stream();
        issued(unsafe { nccl::reduce(from.get(), into.get(), count, datatype, ncclSum, root, self.0, stream) })
    }

    pub fn send(self, program: &Program, from: Buffer, count: usize, datatype: Type, peer: usize) -> Issued {
        issued(unsafe { nccl::send(from.get(), count, datatype, peer as i32, self.0, program.stream()) })
    }

    pub fn receive(self, program: &Program, into: Buffer, count: usize, datatype: Type, peer: usize) -> Issued {
        issued(unsafe { nccl::recv(into.get(), count, datatype, peer as i32, self.0, program.stream()) })
    }

    /// The asynchronous error.
    pub fn poll(self) -> Code {
        let mut state = ncclSuccess;
        let asked = unsafe { sys::ncclCommGetAsyncError(self.0, &mut state) };
        assert_eq!(asked, ncclSuccess, "{}", last_error());
        state
    }

    /// Polls until the last call has taken effect.
    pub fn polled(self) {
        assert_eq!(self.settled(), ncclSuccess, "{}", last_error());
    }

    /// Polls until the state is no longer "in progress".
    pub fn settled(self) -> Code {
        until(|| Some(self.poll()).filter(|&state| state != ncclInProgress))
    }

    /// Polls until the communicator has failed; what is on its streams goes on meanwhile.
    pub fn failed(self) -> Code {
        until(|| Some(self.poll()).filter(|&state| state != ncclInProgress && state != ncclSuccess))
    }

    pub fn finalize(self) -> Issued {
        issued(unsafe { nccl::comm_finalize(self.0) })
    }

    pub fn destroy(self) -> Issued {
        issued(unsafe { nccl::comm_destroy(self.0) })
    }

    pub fn abort(self) -> Issued {
        issued(unsafe { nccl::comm_abort(self.0) })
    }
}

pub fn group_start() {
    assert!(issued(nccl::group_start()).unwrap());
}

pub fn group_end() -> Issued {
    issued(nccl::group_end())
}

/// What `NCCL_CONFIG_INITIALIZER` sets, and whether the communicator blocks.
pub fn config(blocking: i32) -> sys::ncclConfig_t {
    const UNDEFINED: i32 = i32::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: 0xCAFE_BEEF,
        version: 22_907,
        blocking,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: std::ptr::null(),
        splitShare: UNDEFINED,
        trafficClass: UNDEFINED,
        commName: std::ptr::null(),
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

/// The id of a communicator: rank 0 makes it, the others find it in the folder.
pub fn unique_id(rank: usize, name: &str) -> sys::ncclUniqueId {
    let path = world::folder().join(format!("id-{name}"));
    if rank == 0 {
        let id = nccl::get_uniqueid().map_err(words).unwrap();
        let bytes: Vec<u8> = id.internal.iter().map(|&byte| byte as u8).collect();
        let hidden = path.with_extension("new");
        std::fs::write(&hidden, bytes).unwrap();
        std::fs::rename(hidden, path).unwrap();
        return id;
    }
    unique_id_in(&path)
}

/// The id that rank 0 has put into a file, or will.
pub fn unique_id_in(path: &Path) -> sys::ncclUniqueId {
    let bytes = until(|| std::fs::read(path).ok());
    let mut internal = [0; 128];
    internal.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte as i8);
    sys::ncclUniqueId { internal }
}

/// Asks until there is an answer, with a generous deadline.
pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer: {}", last_error());
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// NCCL's sentence for the last error.
pub fn last_error() -> String {
    // SAFETY: the library gives a text that lives until this thread asks again.
    unsafe { CStr::from_ptr(sys::ncclGetLastError(std::ptr::null_mut())) }.to_string_lossy().into_owned()
}

fn words(error: nccl::NcclError) -> String {
    format!("{:?}: {}", error.0, last_error())
}

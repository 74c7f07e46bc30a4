//! The library, and its communicators from their making to their end.

use crate::boundary::{Out, call};
use crate::cuda::{context, device};
use crate::environment::settings;
use crate::nccl::communicator::{COMMUNICATORS, Communicator};
use crate::nccl::config::{ConfigPlace, VERSION};
use crate::nccl::group;
use crate::nccl::rendezvous::Identity;
use crate::nccl::result::{Failure, NcclResult, last_sentence};
use crate::nccl::unique_id::UniqueId;
use crate::trace::Line;
use std::ffi::c_char;
use std::sync::Arc;

/// `ncclGetVersion`
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetVersion(version: Out<i32>) -> NcclResult {
    call("ncclGetVersion", |_| version.set(VERSION))
}

/// `ncclGetUniqueId`
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetUniqueId(id: Out<UniqueId>) -> NcclResult {
    call("ncclGetUniqueId", |_| id.set(UniqueId::new().map_err(|failure| failure.told())?))
}

/// `ncclGetErrorString`
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(code: NcclResult) -> *const c_char {
    code.sentence().as_ptr()
}

/// `ncclGetLastError`
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetLastError(_communicator: u64) -> *const c_char {
    last_sentence()
}

/// A new communicator of the calling thread's device.
fn begin(
    line: &mut Line,
    size: i32,
    id: &UniqueId,
    rank: i32,
    is_blocking: bool,
) -> Result<Arc<Communicator>, NcclResult> {
    line.number("rank", rank).number("size", size);
    let wrong = |sentence: String| {
        Failure::broken_rule(format_args!("rank {rank}"), NcclResult::INVALID_ARGUMENT, sentence).told()
    };
    let numbers = (usize::try_from(size), usize::try_from(rank));
    let (Ok(size), Ok(rank)) = numbers else {
        return Err(wrong(format!("ncclCommInitRank: rank {rank} of {size}")));
    };
    if rank >= size {
        return Err(wrong(format!("ncclCommInitRank: rank {rank} of {size}")));
    }
    let device =
        context::current().map_err(|_| wrong("ncclCommInitRank: the thread has no current device".to_owned()))?;
    let token = id.token().map_err(|failure| failure.told())?;
    line.number("device", device.number);
    Ok(Communicator::join(Identity { rank, size, device: device.number }, device, token, is_blocking))
}

/// `ncclCommInitRank`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommInitRank(communicator: Out<u64>, size: i32, id: UniqueId, rank: i32) -> NcclResult {
    call("ncclCommInitRank", |line| {
        let made = begin(line, size, &id, rank, true)?;
        communicator.set(COMMUNICATORS.insert(Arc::clone(&made)))?;
        group::join(made)
    })
}

/// `ncclCommInitRankConfig`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommInitRankConfig(
    communicator: Out<u64>,
    size: i32,
    id: UniqueId,
    rank: i32,
    config: ConfigPlace,
) -> NcclResult {
    call("ncclCommInitRankConfig", |line| {
        let is_blocking = config.is_blocking().map_err(|failure| failure.told())?;
        let made = begin(line, size, &id, rank, is_blocking)?;
        communicator.set(COMMUNICATORS.insert(Arc::clone(&made)))?;
        group::join(made)
    })
}

/// `ncclCommInitAll`: all ranks in one thread.
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommInitAll(communicators: Out<u64>, size: i32, devices: Devices) -> NcclResult {
    call("ncclCommInitAll", |line| {
        let id = UniqueId::new().map_err(|failure| failure.told())?;
        let before = context::current_or_none().map_err(|_| NcclResult::UNHANDLED_CUDA_ERROR)?;
        let made: Result<Vec<_>, _> = (0..size)
            .map(|rank| {
                let device = device::numbered(devices.of(rank)).map_err(|_| NcclResult::INVALID_ARGUMENT)?;
                context::set_current(Some(device));
                begin(line, size, &id, rank, true)
            })
            .collect();
        context::set_current(before);
        let made = made?;
        communicators.set_all(made.iter().map(|made| COMMUNICATORS.insert(Arc::clone(made))))?;
        made.into_iter().try_for_each(|made| made.wait_until_joined()).map_err(|failure| failure.told())
    })
}

/// The devices of `ncclCommInitAll`, as C functions are given them: null for the first ones, or as many numbers as there
/// are ranks. Only C callers can make one, and they vouch for that.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Devices(*const i32);

impl Devices {
    fn of(self, rank: i32) -> i32 {
        if self.0.is_null() {
            return rank;
        }
        // SAFETY: the caller vouches for a number for each rank.
        unsafe { self.0.add(rank.unsigned_abs() as usize).read_unaligned() }
    }
}

/// `ncclCommFinalize`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommFinalize(communicator: u64) -> NcclResult {
    call("ncclCommFinalize", |line| {
        let communicator = group::alive("ncclCommFinalize", communicator)?;
        line.number("rank", communicator.rank);
        communicator.finalize()
    })
}

/// `ncclCommDestroy`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommDestroy(communicator: u64) -> NcclResult {
    call("ncclCommDestroy", |line| {
        let alive = group::alive("ncclCommDestroy", communicator)?;
        line.number("rank", alive.rank);
        COMMUNICATORS.remove(communicator);
        alive.destroy().map_err(|failure| failure.told())
    })
}

/// `ncclCommAbort`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommAbort(communicator: u64) -> NcclResult {
    call("ncclCommAbort", |line| {
        let alive = group::alive("ncclCommAbort", communicator)?;
        line.number("rank", alive.rank);
        while settings().abort_hangs {
            std::thread::park();
        }
        COMMUNICATORS.remove(communicator);
        alive.abort();
        Ok(())
    })
}

/// `ncclCommGetAsyncError`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommGetAsyncError(communicator: u64, error: Out<NcclResult>) -> NcclResult {
    use crate::boundary::Outcome;
    call("ncclCommGetAsyncError", |line| {
        let communicator = group::alive("ncclCommGetAsyncError", communicator)?;
        let state = communicator.poll();
        if state == NcclResult::IN_PROGRESS {
            line.not_yet();
        }
        line.number("rank", communicator.rank).text("state", state.name());
        error.set(state)
    })
}

/// A number that a communicator has had since it was made.
fn known(name: &'static str, communicator: u64, place: Out<i32>, what: fn(&Communicator) -> usize) -> NcclResult {
    call(name, |_| {
        let communicator = group::alive(name, communicator)?;
        communicator.check(name).map_err(|failure| failure.told())?;
        place.set(what(&communicator) as i32)
    })
}

/// `ncclCommCount`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommCount(communicator: u64, count: Out<i32>) -> NcclResult {
    known("ncclCommCount", communicator, count, |communicator| communicator.size)
}

/// `ncclCommUserRank`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommUserRank(communicator: u64, rank: Out<i32>) -> NcclResult {
    known("ncclCommUserRank", communicator, rank, |communicator| communicator.rank)
}

/// `ncclCommCuDevice`
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommCuDevice(communicator: u64, device: Out<i32>) -> NcclResult {
    known("ncclCommCuDevice", communicator, device, |communicator| communicator.device.ordinal)
}

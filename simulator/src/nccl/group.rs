//! Groups: what a thread issues between `ncclGroupStart` and `ncclGroupEnd` begins together. A group belongs to its
//! thread.

use super::communicator::{COMMUNICATORS, Communicator};
use super::job;
use super::operation::{Operation, Request};
use super::result::{Failure, NcclResult};
use crate::cuda::stream;
use crate::fault::{self, Action};
use std::cell::RefCell;
use std::sync::Arc;

/// What the calling thread has in its open group.
#[derive(Default)]
struct Group {
    /// How many groups are open, one inside the other.
    depth: u32,
    operations: Vec<(Arc<Communicator>, Operation)>,
    joining: Vec<Arc<Communicator>>,
    /// The first failure; then nothing of the group happens.
    failure: Option<NcclResult>,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

/// Opens a group.
pub fn start() {
    GROUP.with_borrow_mut(|group| group.depth += 1);
}

/// Whether the calling thread has an open group.
pub fn is_open() -> bool {
    GROUP.with_borrow(|group| group.depth > 0)
}

/// Ends a group; the outermost one's end begins what is in it.
pub fn end() -> Result<(), NcclResult> {
    let group = GROUP.with_borrow_mut(|group| {
        if group.depth == 0 {
            let sentence = "ncclGroupEnd: the calling thread has no open group";
            return Err(Failure::broken_rule("group", NcclResult::INVALID_USAGE, sentence).told());
        }
        group.depth -= 1;
        Ok(if group.depth == 0 { std::mem::take(group) } else { Group::default() })
    })?;
    group.operations.iter().for_each(|(communicator, _)| communicator.leave_group());
    if let Some(code) = group.failure {
        return Err(code);
    }
    let mut in_progress = false;
    for communicator in group.joining {
        if communicator.is_blocking {
            communicator.wait_until_joined().map_err(|failure| failure.told())?;
        } else {
            in_progress = true;
        }
    }
    job::submit(group.operations)?;
    if in_progress { Err(NcclResult::IN_PROGRESS) } else { Ok(()) }
}

/// A communicator that is being made: inside a group its calls return before the ranks have met.
pub fn join(communicator: Arc<Communicator>) -> Result<(), NcclResult> {
    if is_open() {
        GROUP.with_borrow_mut(|group| group.joining.push(communicator));
        return Ok(());
    }
    if !communicator.is_blocking {
        return Err(NcclResult::IN_PROGRESS);
    }
    communicator.wait_until_joined().map_err(|failure| failure.told())
}

/// Issues an operation: at once, or into the open group.
pub fn issue(call: &str, handle: u64, request: &Request, stream: u64) -> Result<(), NcclResult> {
    let issued = prepare(call, handle, request, stream);
    if !is_open() {
        let (communicator, operation) = issued?;
        return job::submit(vec![(communicator, operation)]);
    }
    GROUP.with_borrow_mut(|group| match issued {
        Ok((communicator, operation)) => {
            communicator.enter_group();
            group.operations.push((communicator, operation));
            Ok(())
        }
        Err(code) => {
            group.failure.get_or_insert(code);
            Err(code)
        }
    })
}

/// The communicator and the checked operation.
fn prepare(
    call: &str,
    handle: u64,
    request: &Request,
    stream: u64,
) -> Result<(Arc<Communicator>, Operation), NcclResult> {
    let fault = fault::next_operation();
    let communicator = alive(call, handle)?;
    communicator.check(call).map_err(|failure| failure.told())?;
    let stream =
        stream::resolve(stream, communicator.device).map_err(|_| invalid(&communicator, call, "stream").told())?;
    let operation = communicator.issuer().check(request, stream).map_err(|failure| failure.told())?;
    match fault {
        // SAFETY: a signal to this very process, which is what was asked for.
        Some(Action::Kill) => unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
        },
        Some(Action::Fail) => return Err(fail(&communicator, call)),
        Some(Action::Slow(time)) => std::thread::sleep(time),
        Some(Action::Hang | Action::Cut | Action::Delay(_)) | None => {}
    }
    Ok((communicator, Operation { fault, ..operation }))
}

/// The fault `fail`: a blocking communicator tells it at once, another when it is polled.
fn fail(communicator: &Communicator, call: &str) -> NcclResult {
    let sentence = format!("rank {}: {call}: failed, as MPT_SIMULATOR_FAULT asks", communicator.rank);
    let failure = Failure::new(NcclResult::SYSTEM_ERROR, sentence);
    communicator.fail_silently(failure.clone());
    if communicator.is_blocking { failure.told() } else { NcclResult::IN_PROGRESS }
}

fn invalid(communicator: &Communicator, call: &str, what: &str) -> Failure {
    Failure::new(NcclResult::INVALID_ARGUMENT, format!("rank {}: {call}: not a {what}", communicator.rank))
}

/// The communicator of a handle; a sentence where it was destroyed, aborted or never made.
pub fn alive(call: &str, handle: u64) -> Result<Arc<Communicator>, NcclResult> {
    COMMUNICATORS.get(handle).ok_or_else(|| {
        let sentence = format!("{handle:#x} is not a communicator, or no longer: it was destroyed or aborted");
        Failure::broken_rule(call, NcclResult::INVALID_ARGUMENT, sentence).told()
    })
}

//! Operations on their way to their streams: those of one call, or of one group. On blocking communicators they arrive
//! at once; on the others when `ncclCommGetAsyncError` has been asked often enough, so that a program which goes on
//! without asking finds its stream without them.

use super::communicator::Communicator;
use super::operation::Operation;
use super::result::{Failure, NcclResult};
use crate::sync::lock;
use std::sync::{Arc, Mutex};

/// The operations of one call or group, by communicator.
pub type Parts = Vec<(Arc<Communicator>, Vec<Operation>)>;

/// Operations that are polled for.
pub struct Job {
    state: Mutex<State>,
}

struct State {
    polls: u64,
    parts: Parts,
}

/// Issues operations. On communicators that do not block the result is `ncclInProgress`.
pub fn submit(operations: Vec<(Arc<Communicator>, Operation)>) -> Result<(), NcclResult> {
    let parts = sorted(operations);
    let Some((first, _)) = parts.first() else { return Ok(()) };
    if parts.iter().any(|(communicator, _)| communicator.is_blocking != first.is_blocking) {
        let sentence = "ncclGroupEnd: blocking and non-blocking communicators in one group";
        let place = format_args!("rank {}", first.rank);
        return Err(Failure::broken_rule(place, NcclResult::INVALID_ARGUMENT, sentence).told());
    }
    check_independence(&parts).map_err(|failure| failure.told())?;
    if first.is_blocking {
        return launch(parts);
    }
    let polls = first.polls_of_a_job();
    let communicators: Vec<_> = parts.iter().map(|(communicator, _)| Arc::clone(communicator)).collect();
    let job = Arc::new(Job { state: Mutex::new(State { polls, parts }) });
    communicators.iter().for_each(|communicator| communicator.set_pending(Some(Arc::clone(&job))));
    Err(NcclResult::IN_PROGRESS)
}

impl Job {
    /// One poll; the last one puts the operations on their streams.
    pub fn poll(&self) -> NcclResult {
        let mut state = lock(&self.state);
        state.polls = state.polls.saturating_sub(1);
        if state.polls > 0 {
            return NcclResult::IN_PROGRESS;
        }
        let parts = std::mem::take(&mut state.parts);
        let communicators: Vec<_> = parts.iter().map(|(communicator, _)| Arc::clone(communicator)).collect();
        // Under the lock: another thread that polls the same job gets its answer when the operations are on their streams.
        let result = launch(parts);
        communicators.iter().for_each(|communicator| communicator.set_pending(None));
        result.err().unwrap_or(NcclResult::SUCCESS)
    }
}

/// Operations of one group begin together: none may write what another touches.
fn check_independence(parts: &Parts) -> Result<(), Failure> {
    let accesses: Vec<_> = parts
        .iter()
        .flat_map(|(communicator, operations)| operations.iter().map(move |operation| (communicator, operation)))
        .map(|(communicator, operation)| (communicator, operation.kind, operation.accesses().collect::<Vec<_>>()))
        .collect();
    for (place, (communicator, kind, first)) in accesses.iter().enumerate() {
        for (_, other, second) in &accesses[..place] {
            if first.iter().any(|access| second.iter().any(|other| access.conflicts(other))) {
                return Err(Failure::broken_rule(
                    format_args!("rank {}", communicator.rank),
                    NcclResult::INVALID_USAGE,
                    format!(
                        "ncclGroupEnd: {other} and {kind} of one group touch the same memory, and one of them writes it"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Puts operations on their streams: all of a job's before any of another's, so that numbers and streams agree.
fn launch(parts: Parts) -> Result<(), NcclResult> {
    static LAUNCHING: Mutex<()> = Mutex::new(());
    let _whole = lock(&LAUNCHING);
    for (communicator, operations) in parts {
        communicator.launch(operations).map_err(|failure| failure.told())?;
        if let Some(failure) = communicator.failure() {
            return Err(failure.told());
        }
    }
    Ok(())
}

/// The operations by communicator, in the order in which the communicators first came.
fn sorted(operations: Vec<(Arc<Communicator>, Operation)>) -> Parts {
    let mut parts: Parts = Vec::new();
    for (communicator, operation) in operations {
        match parts.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &communicator)) {
            Some((_, operations)) => operations.push(operation),
            None => parts.push((communicator, vec![operation])),
        }
    }
    parts
}

//! The transport between GPUs: tensors travel by NCCL. The only home of cudarc.
//!
//! * [`library`] finds the driver and NCCL, and every function of theirs
//! * [`gpu`] a GPU's two streams, and what orders them
//! * [`buffers`] the memory that NCCL reads and writes
//! * [`communicator`] an NCCL communicator, every call checked and polled
//! * `under_way` a call that was started and waits for its end
//! * [`facts`] what the driver and NCCL tell of themselves, without being used
//!
//! A call goes through five stations: (1) libtorch's stream copies what the rank puts in to an exchange buffer, (2) the
//! stream of collectives waits for that copy, (3) NCCL works, (4) libtorch's stream waits for NCCL, (5) and copies what
//! came to a tensor of its own. 1 to 3 are the start of a call, 4 and 5 its end; between them the GPU is free to
//! compute. For tensors in the machine's own memory, (1) and (5) cross over to the GPU and back, and the end waits for
//! the copy.

pub mod buffers;
pub mod communicator;
pub mod facts;
pub mod gpu;
pub mod library;
mod under_way;

use self::buffers::{ALIGNMENT, Buffer, Pool};
use self::communicator::{Communicator, Half, Move, UniqueId, kind};
use self::gpu::{Gpu, size_of};
use self::under_way::{Outcome, Started, dense, empty};
use super::call::{Operation, Signature};
use super::recorder::Probe;
use super::{Arrived, Call, Collective, Form, Request, Stage, Ticket, Timing, Traffic, Volume};
use crate::clock::Moment;
use crate::error::{Error, Result};
use cudarc::driver::CudaEvent;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;
use tch::Tensor;

/// One rank's end of a group of GPUs.
pub struct Nccl {
    // Above what it uses, for it is dropped first.
    communicator: Option<Communicator>,
    gpu: Arc<Gpu>,
    buffers: Pool,
    rank: usize,
    /// The ranks of the whole run that make up the group, for messages.
    members: Vec<usize>,
    sequence: u64,
    /// Calls that were started and not finished, by their number.
    started: BTreeMap<u64, Started>,
    traffic: Traffic,
    /// Calls that were finished, by their number.
    finished: BTreeMap<u64, Finished>,
}

/// A call that was finished: what is known of its time, which on the GPU need not have come yet.
struct Finished {
    arrived: Moment,
    asked: Moment,
    travelled: Option<Arc<CudaEvent>>,
    done: Moment,
}

impl Nccl {
    /// Joins the group of the ranks `members` as its `rank`-th, waiting for all of them at most `limit`, as in every
    /// later call. The members share the id; a group of one needs none.
    ///
    /// # Errors
    /// NCCL's, or not every rank came in time.
    pub fn join(gpu: Arc<Gpu>, id: Option<&UniqueId>, rank: usize, members: &[usize], limit: Duration) -> Result<Self> {
        let communicator = match id {
            Some(id) => {
                let joined = Communicator::join(Arc::clone(&gpu), id, rank, members.len(), limit);
                let own = members[rank];
                Some(joined.map_err(|error| error.within(format!("rank {own} joins ranks {members:?}")))?)
            }
            None => None,
        };
        Ok(Self {
            communicator,
            buffers: Pool::new(Arc::clone(&gpu)),
            gpu,
            rank,
            members: members.to_vec(),
            sequence: 0,
            started: BTreeMap::new(),
            traffic: Traffic::default(),
            finished: BTreeMap::new(),
        })
    }

    /// An error of a call, with all that is known of it.
    fn in_call(&self, signature: &Signature, bytes: usize, error: Error) -> Error {
        let own = self.members[self.rank];
        let peers: Vec<usize> = self.members.iter().copied().filter(|&member| member != own).collect();
        error.within(format!("rank {own}, with ranks {peers:?}, in {signature}, {bytes} bytes"))
    }

    /// Copies tensors to a buffer, side by side, each at a multiple of `step` bytes.
    fn copy_in(&mut self, tensors: &[Tensor], step: usize) -> Result<Buffer> {
        let buffer = self.buffers.take(tensors.len() * step)?;
        for (place, tensor) in tensors.iter().enumerate() {
            self.gpu.copy_in(tensor, &buffer, place * step)?;
        }
        Ok(buffer)
    }

    /// Stations 1 to 3 of an operation in which every rank has the same forms.
    fn start_alike(&mut self, signature: Signature, tensors: &[&Tensor], root: usize) -> Result<Started> {
        let kept = ManuallyDrop::new(tensors.iter().map(|tensor| dense(tensor)).collect::<Result<Vec<_>>>()?);
        let form = Form::of(tensors[0]);
        let (bytes, size) = (form.bytes(), self.members.len());
        let kind = kind(form.kind)?;
        let from = self.copy_in(&kept, bytes)?;
        let results = if signature.operation == Operation::AllGather { size } else { 1 };
        let to = self.buffers.take(results * bytes)?;
        let moved = Move { from: from.place(0, bytes)?, to: to.place(0, results * bytes)?, count: form.count(), kind };
        let operation = |communicator: &mut Communicator| match signature.operation {
            Operation::AllGather => communicator.all_gather(moved),
            Operation::ReduceScatter => communicator.reduce_scatter(moved),
            Operation::Broadcast => communicator.broadcast(moved, root),
            _ => communicator.all_reduce(moved),
        };
        let travelled = if bytes > 0 { Some(self.travel(operation)) } else { None };
        let travelled = travelled.transpose().map_err(|error| self.in_call(&signature, kept.len() * bytes, error))?;
        let to_all = ((size - 1) * bytes) as u64;
        let (sent_bytes, received_bytes) = match signature.operation {
            Operation::Broadcast if root == self.rank => (to_all, 0),
            Operation::Broadcast => (0, bytes as u64),
            _ => (to_all, to_all),
        };
        self.traffic.count(signature.operation, Volume { sent_bytes, received_bytes });
        let (travelled, result) = (travelled.map(Arc::new), Outcome::Alike { form, count: results });
        Ok(Started { signature, arrived: Moment::now(), kept, travelled, buffers: vec![from, to], result })
    }

    /// Stations 1 to 3 of a group of sends and receives: what goes to each rank, and the form of what comes from it.
    fn start_by_rank(
        &mut self,
        signature: Signature,
        sends: Vec<Option<Tensor>>,
        forms: Vec<Option<Form>>,
    ) -> Result<Started> {
        let mut sends = sends;
        let own = sends[self.rank].take();
        let mut forms = forms;
        forms[self.rank] = None;
        let kept = ManuallyDrop::new(sends.iter().flatten().map(dense).collect::<Result<Vec<_>>>()?);
        let aligned = |bytes: usize| bytes.next_multiple_of(ALIGNMENT);
        let from = self.buffers.take(kept.iter().map(|tensor| aligned(size_of(tensor))).sum())?;
        let to = self.buffers.take(forms.iter().flatten().map(|form| aligned(form.bytes())).sum())?;
        let (mut halves, mut at, mut volume) = ([Vec::new(), Vec::new()], 0, Volume::default());
        let peers = sends.iter().enumerate().filter(|(_, send)| send.is_some()).map(|(peer, _)| peer);
        for (peer, tensor) in peers.zip(kept.iter()) {
            let bytes = size_of(tensor);
            self.gpu.copy_in(tensor, &from, at)?;
            volume.sent_bytes += bytes as u64;
            if bytes > 0 {
                let (place, kind) = (from.place(at, bytes)?, kind(tensor.kind())?);
                halves[0].push(Half { place, count: tensor.numel(), kind, peer });
            }
            at += aligned(bytes);
        }
        at = 0;
        let mut placed = Vec::with_capacity(forms.len());
        for (peer, form) in forms.into_iter().enumerate() {
            let Some(form) = form else {
                placed.push(None);
                continue;
            };
            let bytes = form.bytes();
            volume.received_bytes += bytes as u64;
            if bytes > 0 {
                let (place, kind) = (to.place(at, bytes)?, kind(form.kind)?);
                halves[1].push(Half { place, count: form.count(), kind, peer });
            }
            placed.push(Some((at, form)));
            at += aligned(bytes);
        }
        self.traffic.count(signature.operation, volume);
        let [sends, receives] = halves;
        let anything = !(sends.is_empty() && receives.is_empty());
        let travelled = anything.then(|| self.travel(|communicator| communicator.send_receive(&sends, &receives)));
        let travelled = travelled.transpose().map_err(|error| self.in_call(&signature, at, error))?;
        let (travelled, result) = (travelled.map(Arc::new), Outcome::ByRank { forms: placed, own });
        Ok(Started { signature, arrived: Moment::now(), kept, travelled, buffers: vec![from, to], result })
    }

    /// Stations 2 and 3, and the mark that station 4 waits for.
    fn travel(&mut self, operation: impl FnOnce(&mut Communicator) -> Result<()>) -> Result<CudaEvent> {
        let communicator = self.communicator.as_mut().ok_or_else(|| Error::failed("a group of one does not travel"))?;
        self.gpu.travel_after_compute()?;
        operation(communicator)?;
        self.gpu.travelled()
    }

    /// Stations 4 and 5.
    fn arrive(&mut self, started: &Started) -> Result<Arrived> {
        if let Some(travelled) = &started.travelled {
            self.gpu.compute_after(travelled)?;
            // A copy to the machine's own memory may block this thread, and a rank that has gone would block it for ever.
            if started.to_host() {
                let come = self.gpu.computed()?;
                self.wait_for(&come)?;
            }
        }
        match &started.result {
            Outcome::Own(tensors) => Ok(Arrived::new(tensors.iter().map(shallow).collect())),
            Outcome::Alike { form, count } => {
                // What this rank put into a gather it has already: the parts before and after that are copied.
                let own = (*count > 1).then(|| started.kept[0].shallow_clone());
                let (all, views) = empty(form, *count - usize::from(own.is_some()))?;
                let written = ManuallyDrop::new(vec![all]);
                let before = if own.is_some() { self.rank } else { *count };
                for (parts, to) in [(0..before, 0), (before + 1..*count, before)] {
                    if !parts.is_empty() {
                        let size = form.count();
                        let target = written[0].f_narrow(0, (to * size) as i64, (parts.len() * size) as i64)?;
                        self.gpu.copy_out(&started.buffers[1], parts.start * form.bytes(), &target)?;
                    }
                }
                self.settle(started, written)?;
                let mut arrived: Vec<_> = views.into_iter().map(Some).collect();
                if own.is_some() {
                    arrived.insert(self.rank, own);
                }
                Ok(Arrived::new(arrived))
            }
            Outcome::ByRank { forms, own } => {
                let mut arrived = Vec::with_capacity(forms.len());
                let mut written = ManuallyDrop::new(Vec::new());
                for form in forms {
                    arrived.push(match form {
                        None => None,
                        Some((at, form)) => {
                            let (all, mut views) = empty(form, 1)?;
                            self.gpu.copy_out(&started.buffers[1], *at, &all)?;
                            written.push(all);
                            views.pop()
                        }
                    });
                }
                self.settle(started, written)?;
                if own.is_some() {
                    arrived[self.rank] = shallow(own);
                }
                Ok(Arrived::new(arrived))
            }
        }
    }

    /// Waits for copies to the machine's own memory: what is on the GPU is read in the order of its stream anyway. Of
    /// tensors whose copies do not come to an end the memory is given to nobody else.
    fn settle(&mut self, started: &Started, written: ManuallyDrop<Vec<Tensor>>) -> Result<()> {
        if started.to_host() {
            let settled = self.gpu.computed()?;
            self.wait_for(&settled)?;
            if started.signature.call.stage == Stage::Agree {
                // Once a step, when the GPU has nothing else to do: what it does next is timed from here.
                self.gpu.set_clock(settled);
            }
        }
        drop(ManuallyDrop::into_inner(written));
        Ok(())
    }

    fn wait_for(&mut self, event: &CudaEvent) -> Result<()> {
        match &mut self.communicator {
            Some(communicator) => communicator.wait(|| gpu::is_complete(event)),
            None => Ok(()),
        }
    }
}

impl Drop for Nccl {
    /// Memory that NCCL may still be using is left to the end of the process: to free it would wait for NCCL, which
    /// may wait for a rank that has gone.
    fn drop(&mut self) {
        let Some(communicator) = &mut self.communicator else { return };
        if communicator.is_broken() || !self.started.is_empty() {
            communicator.give_up();
            self.buffers.leave();
        }
    }
}

fn shallow(tensor: &Option<Tensor>) -> Option<Tensor> {
    tensor.as_ref().map(Tensor::shallow_clone)
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn start(&mut self, call: &Call, request: Request) -> Result<Ticket> {
        self.sequence += 1;
        let signature = Signature::new(self.sequence, call, &request);
        request.check(&signature, self.size())?;
        self.gpu.bind()?;
        let started = match request {
            request if self.communicator.is_none() => {
                let own = match request {
                    Request::SendReceive { sends, .. } => sends,
                    _ => request.tensors().into_iter().map(|tensor| Some(tensor.shallow_clone())).collect(),
                };
                let (kept, buffers) = (ManuallyDrop::new(Vec::new()), Vec::new());
                let result = Outcome::Own(own);
                Started { signature, arrived: Moment::now(), kept, travelled: None, buffers, result }
            }
            Request::AllToAll(parts) => {
                let forms = parts.iter().map(|part| Some(Form::of(part))).collect();
                self.start_by_rank(signature, parts.into_iter().map(Some).collect(), forms)?
            }
            Request::SendReceive { sends, receives } => self.start_by_rank(signature, sends, receives)?,
            request => {
                let root = if let Request::Broadcast(_, root) = request { root } else { 0 };
                self.start_alike(signature, &request.tensors(), root)?
            }
        };
        self.started.insert(self.sequence, started);
        Ok(Ticket(self.sequence))
    }

    fn finish(&mut self, ticket: Ticket) -> Result<Arrived> {
        let started = self.started.remove(&ticket.0).ok_or_else(|| ticket.unknown())?;
        let asked = Moment::now();
        self.gpu.bind()?;
        let bytes = started.kept.iter().map(size_of).sum();
        let arrived = self.arrive(&started).map_err(|error| self.in_call(&started.signature, bytes, error))?;
        drop(ManuallyDrop::into_inner(started.kept));
        for buffer in started.buffers {
            self.buffers.give_back(buffer);
        }
        if self.communicator.is_some() {
            let Started { arrived, travelled, .. } = started;
            self.finished.insert(ticket.0, Finished { arrived, asked, travelled, done: Moment::now() });
        }
        Ok(arrived)
    }

    fn probe(&self, ticket: &Ticket) -> Option<Probe> {
        let travelled = Arc::clone(self.started.get(&ticket.0)?.travelled.as_ref()?);
        let gpu = Arc::clone(&self.gpu);
        // Of work that failed nothing more is to be expected; the rank hears of it in its own call.
        Some(Arc::new(move || gpu.bind().and_then(|()| gpu::is_complete(&travelled)).unwrap_or(true)))
    }

    fn common(&mut self, _call: &Call, own: Tensor) -> Result<Tensor> {
        // A call like that of other transports, though nothing travels.
        self.sequence += 1;
        Ok(own)
    }

    fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    fn take_timings(&mut self) -> Vec<Timing> {
        let timing = |Finished { arrived, asked, travelled, done }: Finished| {
            // Where nothing travelled it came at once; where the GPU cannot tell, when it was needed.
            let came = travelled.map_or(arrived, |travelled| self.gpu.moment_of(&travelled).unwrap_or(done));
            Timing { arrived, asked, came: came.clamp(arrived, done), done }
        };
        std::mem::take(&mut self.finished).into_values().map(timing).collect()
    }
}

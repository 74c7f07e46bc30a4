//! The collectives against a copy in memory.

use super::statistics::{median, timed};
use crate::comm::{Call, Collective, Form, Operation, Stage};
use crate::engine::session::Grouped;
use crate::error::Result;
use crate::launch::threads::{self, Reporter};
use crate::torch;
use tch::{Device, Kind, Tensor};

/// Bytes that are moved in each measurement, in calls of one size.
const MOVED: usize = 256 << 20;
/// Calls of one size, at least and at most.
const CALLS: (usize, usize) = (10, 1000);
/// Calls that are not timed.
const WARMUP: usize = 3;

/// The operations that are measured.
pub const OPERATIONS: [Operation; 5] =
    [Operation::AllGather, Operation::ReduceScatter, Operation::AllToAll, Operation::AllReduce, Operation::SendReceive];

/// What a call takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The operation.
    pub operation: Operation,
    /// How many ranks take part.
    pub ranks: usize,
    /// Bytes that each rank receives from all others together if each sends what it has as it is, as CPU devices do. Fewer
    /// travel in a sum over NCCL, which adds up on the way.
    pub received: usize,
    /// Seconds from call to result on the first rank, the median.
    pub seconds: f64,
    /// Seconds that the first rank takes to copy as many bytes in its own memory, the median.
    pub copy_seconds: f64,
}

impl Row {
    /// Bytes received a second.
    pub fn bandwidth(&self) -> f64 {
        self.received as f64 / self.seconds
    }

    /// The bandwidth as a part of that of a copy.
    pub fn of_a_copy(&self) -> f64 {
        self.copy_seconds / self.seconds
    }
}

/// What is measured of one collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The operation.
    pub operation: Operation,
    /// About how many bytes each rank receives from all others together.
    pub size: usize,
    /// How many calls are timed.
    pub calls: usize,
}

/// Every collective in each of some sizes, with as many calls as give a steady median.
pub fn jobs(sizes: &[usize]) -> Vec<Job> {
    let calls = |size: usize| (MOVED / size.max(1)).clamp(CALLS.0, CALLS.1);
    let of = |operation| sizes.iter().map(move |&size| Job { operation, size, calls: calls(size) });
    OPERATIONS.into_iter().flat_map(of).collect()
}

/// Measures collectives between ranks along the model axis, one after the other, with tensors on a device. Nothing comes
/// of it where the first rank is in another process.
///
/// # Errors
/// A rank failed.
pub fn measure(ranks: Grouped, device: Device, jobs: &[Job]) -> Result<Vec<Row>> {
    let jobs = jobs.to_vec();
    let crew = threads::start_some(ranks.groups, move |rank, mut groups, reporter| {
        torch::set_threads(1);
        for &job in &jobs {
            let row = time(job, groups.model.as_mut(), device)?;
            say(rank, row, reporter)?;
        }
        Ok(())
    })?;
    let mut crew = crew.interrupted_by(ranks.interrupts);
    let mut rows = Vec::new();
    while let Some(row) = crew.next_report()? {
        rows.push(row);
    }
    Ok(rows)
}

fn say(rank: usize, row: Row, reporter: &Reporter<Row>) -> Result<()> {
    if rank == 0 { reporter.report(row) } else { Ok(()) }
}

fn time(Job { operation, size, calls }: Job, group: &mut dyn Collective, device: Device) -> Result<Row> {
    let others = group.size() - 1;
    let options = (Kind::Float, device);
    let width = Kind::Float.elt_size_in_bytes();
    // What one other rank sends: for a sum of everything, all of it.
    let piece = (size / width / others.max(1)).max(1);
    let own = Tensor::f_ones([piece as i64], options)?;
    let parts = (0..group.size()).map(|_| Tensor::f_ones([piece as i64], options)).collect::<Result<Vec<_>, _>>()?;
    let received = piece * others * width;
    let copied = Tensor::f_ones([(received / width) as i64], options)?;
    let (mut seconds, mut copy_seconds) = (Vec::new(), Vec::new());
    for _ in 0..WARMUP + calls {
        seconds.push(timed(device, || call(operation, group, &own, &parts))?);
        copy_seconds.push(timed(device, || Ok(Tensor::f_cat(&[&copied], 0)?))?);
    }
    let (seconds, copy_seconds) = (median(&seconds[WARMUP..]), median(&copy_seconds[WARMUP..]));
    Ok(Row { operation, ranks: group.size(), received, seconds, copy_seconds })
}

/// One call, with what the engine does to have the result in memory of its own.
fn call(operation: Operation, group: &mut dyn Collective, own: &Tensor, parts: &[Tensor]) -> Result<()> {
    let call = Call::new("benchmark", Stage::Forward);
    match operation {
        Operation::AllGather => drop(Tensor::f_cat(&group.all_gather(&call, own)?, 0)?),
        Operation::ReduceScatter => drop(group.reduce_scatter(&call, parts)?),
        Operation::AllReduce => drop(group.all_reduce(&call, own)?),
        Operation::AllToAll => drop(Tensor::f_cat(&group.all_to_all(&call, parts)?, 0)?),
        Operation::Broadcast => drop(group.broadcast(&call, own, 0)?),
        Operation::SendReceive => {
            let rank = group.rank();
            let others = |to: usize| to != rank;
            let sends: Vec<_> =
                parts.iter().enumerate().map(|(to, part)| others(to).then(|| part.shallow_clone())).collect();
            let receives: Vec<_> = (0..parts.len()).map(|from| others(from).then(|| Form::of(own))).collect();
            let arrived: Vec<Tensor> = group.send_receive(&call, sends, receives)?.into_iter().flatten().collect();
            drop(Tensor::f_cat(&arrived, 0)?);
        }
    }
    Ok(())
}

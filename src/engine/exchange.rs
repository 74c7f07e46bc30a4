//! Carries out the plan's exchanges on a collective: forward, from what a rank holds to what it reads; backward, from
//! the gradient of what it read to the gradient of what it holds. Each is started and finished, and the rank may compute
//! between the two.

use crate::comm::{Arrived, Call, Collective, Form, Request, Ticket};
use crate::error::{Error, Result};
use crate::layers::{place, select};
use crate::model::Channels;
use crate::plan::{Adjoint, Exchange, Operation, Transfer};
use tch::Tensor;

/// Starts to bring the channels that this rank needs; `own` are those that it owns, `[N, owned, ...]`.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn start(exchange: &Exchange, comm: &mut dyn Collective, call: &Call, own: &Tensor) -> Result<Ticket> {
    let request = match exchange.operation {
        Operation::AllReduce => Request::AllReduce(own.shallow_clone()),
        Operation::AllGather => Request::AllGather(own.shallow_clone()),
        Operation::SendReceive => travel(exchange.transfers(), comm, &exchange.owned[comm.rank()], own)?,
    };
    comm.start(call, request)
}

/// The channels that this rank needs, `[N, needed, ...]`, when they have come.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn finish(exchange: &Exchange, comm: &mut dyn Collective, ticket: Ticket, own: &Tensor) -> Result<Tensor> {
    let rank = comm.rank();
    let arrived = comm.finish(ticket)?;
    match exchange.operation {
        Operation::AllReduce => arrived.one(),
        Operation::AllGather => Ok(Tensor::f_cat(&arrived.from_all()?, 1)?),
        Operation::SendReceive => {
            let mut pieces = vec![(exchange.owned[rank].clone(), own.shallow_clone())];
            pieces.extend(pieces_of(exchange.transfers(), rank, arrived)?);
            assemble(&pieces, &exchange.needed[rank])
        }
    }
}

/// Starts to bring gradients back: `gradient` is that of the channels that this rank needed, `[N, needed, ...]`. Gives
/// nothing to finish where nothing travels.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn start_back(
    exchange: &Exchange,
    comm: &mut dyn Collective,
    call: &Call,
    gradient: &Tensor,
) -> Result<Option<Ticket>> {
    let needed = &exchange.needed[comm.rank()];
    let request = match (exchange.adjoint, exchange.operation) {
        (Adjoint::Identity | Adjoint::Slice, _) => return Ok(None),
        (Adjoint::Sum, Operation::AllGather) => {
            let parts = exchange.owned.iter().map(|owned| select(gradient, &positions(needed, owned)?));
            Request::ReduceScatter(parts.collect::<Result<Vec<_>>>()?)
        }
        (Adjoint::Sum, _) => travel(exchange.adjoint_transfers(), comm, needed, gradient)?,
    };
    comm.start(call, request).map(Some)
}

/// The gradient of the channels that this rank owns, `[N, owned, ...]`, when its pieces have come.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn finish_back(
    exchange: &Exchange,
    comm: &mut dyn Collective,
    ticket: Option<Ticket>,
    gradient: &Tensor,
) -> Result<Tensor> {
    let rank = comm.rank();
    let (owned, needed) = (&exchange.owned[rank], &exchange.needed[rank]);
    let arrived = ticket.map(|ticket| comm.finish(ticket)).transpose()?;
    match (exchange.adjoint, exchange.operation, arrived) {
        (Adjoint::Sum, Operation::AllGather, Some(arrived)) => arrived.one(),
        (Adjoint::Sum, _, Some(arrived)) => {
            let mut pieces = pieces_of(exchange.adjoint_transfers(), rank, arrived)?;
            let kept = owned.intersection(needed);
            let own = select(gradient, &positions(needed, &kept)?)?;
            // The owner sums in rank order, its own piece at its own place.
            let place_of_own = exchange.needed[..rank].iter().filter(|other| !owned.intersection(other).is_empty());
            pieces.insert(place_of_own.count(), (kept, own));
            let mut shape = gradient.size();
            shape[1] = owned.len() as i64;
            let sum = gradient.f_new_zeros(shape, (gradient.kind(), gradient.device()))?;
            for (channels, piece) in &pieces {
                place(&sum, &positions(owned, channels)?, piece)?;
            }
            Ok(sum)
        }
        (Adjoint::Slice, ..) => select(gradient, &positions(needed, owned)?),
        _ => Ok(gradient.shallow_clone()),
    }
}

fn positions(of: &Channels, part: &Channels) -> Result<Channels> {
    of.positions(part).ok_or_else(|| Error::failed(format!("the plan looks for channels {part} among {of}")))
}

/// One group of sends and receives, from a tensor that holds the channels `held`.
fn travel(transfers: Vec<Transfer>, comm: &dyn Collective, held: &Channels, tensor: &Tensor) -> Result<Request> {
    let rank = comm.rank();
    let mut sends: Vec<Option<Tensor>> = (0..comm.size()).map(|_| None).collect();
    let mut receives: Vec<Option<Form>> = vec![None; comm.size()];
    for Transfer { from, to, channels } in transfers {
        if from == rank {
            sends[to] = Some(select(tensor, &positions(held, &channels)?)?);
        } else if to == rank {
            let mut form = Form::of(tensor);
            form.shape[1] = channels.len() as i64;
            receives[from] = Some(form);
        }
    }
    Ok(Request::SendReceive { sends, receives })
}

/// What came to this rank, in the order of the senders.
fn pieces_of(transfers: Vec<Transfer>, rank: usize, arrived: Arrived) -> Result<Vec<(Channels, Tensor)>> {
    let mut incoming = arrived.by_rank();
    let to_this = transfers.into_iter().filter(|transfer| transfer.to == rank);
    to_this
        .map(|Transfer { from, channels, .. }| match incoming[from].take() {
            Some(tensor) => Ok((channels, tensor)),
            None => Err(Error::failed(format!("nothing came from rank {from} of the group"))),
        })
        .collect()
}

/// The tensor of exactly the channels `needed`, from pieces that together hold at least those.
fn assemble(pieces: &[(Channels, Tensor)], needed: &Channels) -> Result<Tensor> {
    let mut ranges = Vec::new();
    for (channels, tensor) in pieces {
        for range in channels.intersection(needed).ranges() {
            let found = positions(channels, &Channels::from(range.clone()))?;
            ranges.push((range.start, select(tensor, &found)?));
        }
    }
    ranges.sort_by_key(|(start, _)| *start);
    let parts: Vec<&Tensor> = ranges.iter().map(|(_, part)| part).collect();
    match (&parts[..], pieces) {
        // A rank may need nothing of an activation: an empty part of what it holds has the right other sizes.
        ([], [(_, own), ..]) => select(own, &Channels::none()),
        _ => Ok(Tensor::f_cat(&parts, 1)?),
    }
}

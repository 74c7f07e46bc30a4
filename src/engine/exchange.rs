//! Carries out the plan's exchanges on a collective: forward, from what a rank holds to what it reads; backward, from
//! the gradient of what it read to the gradient of what it holds. Each is started and finished, and the rank may compute
//! between the two.

use crate::comm::{Arrived, Call, Collective, Form, Request, Ticket};
use crate::error::{Error, Result};
use crate::layers::{place, select};
use crate::model::Channels;
use crate::plan::{Adjoint, Exchange, Operation, Transfer};
use tch::{Kind, Tensor};

/// Starts to bring the channels that this rank needs; `own` are those that it owns, `[N, owned, ...]`.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn start(exchange: &Exchange, comm: &mut dyn Collective, call: &Call, own: &Tensor) -> Result<Ticket> {
    let own = &packed(exchange, own)?;
    let request = match exchange.operation {
        Operation::AllReduce => Request::AllReduce(own.shallow_clone()),
        Operation::AllGather => Request::AllGather(own.shallow_clone()),
        Operation::SendReceive => {
            let owned = &exchange.owned[comm.rank()];
            let part = |_, channels: &Channels| select(own, &positions(owned, channels)?);
            travel(exchange.transfers(), comm, own, part)?
        }
    };
    comm.start(call, request)
}

/// The channels that this rank needs, `[N, needed, ...]`, when they have come; of an exchange in parts those that each rank
/// owns, `[N, owned, ...]`, in rank order.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn finish(exchange: &Exchange, comm: &mut dyn Collective, ticket: Ticket, own: &Tensor) -> Result<Vec<Tensor>> {
    let (rank, kind) = (comm.rank(), own.kind());
    let arrived = comm.finish(ticket)?;
    // Of what is rounded on its way the owner reads no more than the others do.
    let own = &packed(exchange, own)?;
    if exchange.in_parts {
        let mut parts = arrived.by_rank();
        parts[rank] = Some(own.shallow_clone());
        let none = || Error::failed("a rank sent no part of an exchange in parts");
        return parts.into_iter().map(|part| Ok(part.ok_or_else(none)?.f_to_kind(kind)?)).collect();
    }
    let whole = match exchange.operation {
        Operation::AllReduce => arrived.one()?,
        Operation::AllGather => Tensor::f_cat(&arrived.from_all()?, 1)?,
        Operation::SendReceive => {
            let mut pieces = vec![(exchange.owned[rank].clone(), own.shallow_clone())];
            pieces.extend(pieces_of(exchange.transfers(), rank, arrived)?);
            assemble(&pieces, &exchange.needed[rank])?
        }
    };
    Ok(vec![whole.f_to_kind(kind)?])
}

/// Starts to bring gradients back: `gradient` has that of each tensor that [`finish`] gave. Gives nothing to finish where
/// nothing travels.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn start_back(
    exchange: &Exchange,
    comm: &mut dyn Collective,
    call: &Call,
    gradient: &[Tensor],
) -> Result<Option<Ticket>> {
    if exchange.adjoint != Adjoint::Sum {
        return Ok(None);
    }
    let rank = comm.rank();
    let gradient = &gradient.iter().map(|part| packed_gradient(exchange, part)).collect::<Result<Vec<_>>>()?[..];
    let request = match exchange.operation {
        Operation::AllGather => {
            let parts = (0..comm.size()).map(|owner| gradient_for(exchange, rank, owner, gradient));
            Request::ReduceScatter(parts.collect::<Result<Vec<_>>>()?)
        }
        Operation::SendReceive | Operation::AllReduce => {
            let part = |owner, _: &Channels| gradient_for(exchange, rank, owner, gradient);
            travel(exchange.adjoint_transfers(), comm, &gradient[0], part)?
        }
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
    gradient: &[Tensor],
) -> Result<Tensor> {
    let (rank, kind) = (comm.rank(), gradient[0].kind());
    let owned = &exchange.owned[rank];
    let own = || gradient_for(exchange, rank, rank, gradient);
    let arrived = ticket.map(|ticket| comm.finish(ticket)).transpose()?;
    match (exchange.adjoint, exchange.operation, arrived) {
        (Adjoint::Sum, Operation::AllGather, Some(arrived)) => unpacked_gradient(exchange, &arrived.one()?, kind),
        (Adjoint::Sum, _, Some(arrived)) => {
            let pieces = pieces_of(exchange.adjoint_transfers(), rank, arrived)?.into_iter();
            let unpacked = pieces.map(|(channels, piece)| Ok((channels, unpacked_gradient(exchange, &piece, kind)?)));
            let mut pieces = unpacked.collect::<Result<Vec<_>>>()?;
            // The owner sums in rank order, its own piece at its own place.
            let place_of_own = exchange.needed[..rank].iter().filter(|other| !owned.intersection(other).is_empty());
            pieces.insert(place_of_own.count(), (owned.intersection(&exchange.needed[rank]), own()?));
            let Form { mut shape, device, .. } = Form::of(&gradient[0]);
            shape[1] = owned.len() as i64;
            let sum = gradient[0].f_new_zeros(shape, (kind, device))?;
            for (channels, piece) in &pieces {
                place(&sum, &positions(owned, channels)?, piece)?;
            }
            Ok(sum)
        }
        (Adjoint::Slice, ..) => own(),
        _ => Ok(gradient[0].shallow_clone()),
    }
}

/// Values as they travel.
fn packed(exchange: &Exchange, values: &Tensor) -> Result<Tensor> {
    Ok(if exchange.in_half { values.f_to_kind(Kind::Half)? } else { values.shallow_clone() })
}

/// Gradients as they travel: in fp16, of each example's own loss. As parts of the mean over a batch, many would be less than what
/// fp16 tells from 0.
fn packed_gradient(exchange: &Exchange, gradient: &Tensor) -> Result<Tensor> {
    if !exchange.in_half {
        return Ok(gradient.shallow_clone());
    }
    Ok(gradient.f_mul_scalar(of_one_example(gradient))?.f_to_kind(Kind::Half)?)
}

fn unpacked_gradient(exchange: &Exchange, gradient: &Tensor, kind: Kind) -> Result<Tensor> {
    if !exchange.in_half {
        return Ok(gradient.shallow_clone());
    }
    Ok(gradient.f_to_kind(kind)?.f_mul_scalar(1.0 / of_one_example(gradient))?)
}

/// The examples of a gradient, [N, ...], or the next power of 2: with that nothing is rounded.
fn of_one_example(gradient: &Tensor) -> f64 {
    gradient.size()[0].max(1).unsigned_abs().next_power_of_two() as f64
}

/// Of the gradient of what `rank` needed, the part of the channels that `owner` owns.
fn gradient_for(exchange: &Exchange, rank: usize, owner: usize, gradient: &[Tensor]) -> Result<Tensor> {
    if exchange.in_parts {
        return Ok(gradient[owner].shallow_clone());
    }
    let needed = &exchange.needed[rank];
    select(&gradient[0], &positions(needed, &needed.intersection(&exchange.owned[owner]))?)
}

fn positions(of: &Channels, part: &Channels) -> Result<Channels> {
    of.positions(part).ok_or_else(|| Error::failed(format!("the plan looks for channels {part} among {of}")))
}

/// One group of sends and receives: `part` gives what goes to a rank, all of it like `like` but for the number of channels.
fn travel(
    transfers: Vec<Transfer>,
    comm: &dyn Collective,
    like: &Tensor,
    part: impl Fn(usize, &Channels) -> Result<Tensor>,
) -> Result<Request> {
    let rank = comm.rank();
    let mut sends: Vec<Option<Tensor>> = (0..comm.size()).map(|_| None).collect();
    let mut receives: Vec<Option<Form>> = vec![None; comm.size()];
    for Transfer { from, to, channels } in transfers {
        if from == rank {
            sends[to] = Some(part(to, &channels)?);
        } else if to == rank {
            let mut form = Form::of(like);
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

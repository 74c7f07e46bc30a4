//! Carries out the plan's exchanges on a collective: forward, from what a rank holds to what it reads; backward, from
//! the gradient of what it read to the gradient of what it holds.

use crate::comm::{Call, Collective, Form};
use crate::error::{Error, Result};
use crate::layers::{place, select};
use crate::model::Channels;
use crate::plan::{Adjoint, Exchange, Operation, Transfer};
use tch::Tensor;

/// The channels that `rank` needs, from `own`, the channels that it owns: `[N, owned, ...]` to `[N, needed, ...]`.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn forward(exchange: &Exchange, comm: &mut dyn Collective, call: &Call, own: &Tensor) -> Result<Tensor> {
    let rank = comm.rank();
    match exchange.operation {
        Operation::AllReduce => comm.all_reduce(call, own),
        Operation::AllGather => Ok(Tensor::f_cat(&comm.all_gather(call, own)?, 1)?),
        Operation::SendReceive => {
            let held = &exchange.owned[rank];
            let incoming = travel(exchange.transfers(), comm, call, held, own)?;
            let mut pieces = vec![(held.clone(), own.shallow_clone())];
            pieces.extend(incoming);
            assemble(&pieces, &exchange.needed[rank])
        }
    }
}

/// The gradient of the channels that `rank` owns, from `gradient`, that of the channels it needed: `[N, needed, ...]`
/// to `[N, owned, ...]`.
///
/// # Errors
/// What the collective or libtorch reports.
pub fn backward(exchange: &Exchange, comm: &mut dyn Collective, call: &Call, gradient: &Tensor) -> Result<Tensor> {
    let rank = comm.rank();
    let (owned, needed) = (&exchange.owned[rank], &exchange.needed[rank]);
    match (exchange.adjoint, exchange.operation) {
        (Adjoint::Identity, _) => Ok(gradient.shallow_clone()),
        (Adjoint::Slice, _) => select(gradient, &positions(needed, owned)?),
        (Adjoint::Sum, Operation::AllGather) => {
            let parts = exchange.owned.iter().map(|owned| select(gradient, &positions(needed, owned)?));
            comm.reduce_scatter(call, &parts.collect::<Result<Vec<_>>>()?)
        }
        (Adjoint::Sum, _) => {
            let mut pieces = travel(exchange.adjoint_transfers(), comm, call, needed, gradient)?;
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
    }
}

fn positions(of: &Channels, part: &Channels) -> Result<Channels> {
    of.positions(part).ok_or_else(|| Error::failed(format!("the plan looks for channels {part} among {of}")))
}

/// One group of sends and receives: what came to this rank, in the order of the senders.
fn travel(
    transfers: Vec<Transfer>,
    comm: &mut dyn Collective,
    call: &Call,
    held: &Channels,
    tensor: &Tensor,
) -> Result<Vec<(Channels, Tensor)>> {
    let rank = comm.rank();
    let mut sends: Vec<Option<Tensor>> = (0..comm.size()).map(|_| None).collect();
    let mut receives: Vec<Option<Form>> = vec![None; comm.size()];
    let mut expected = Vec::new();
    for Transfer { from, to, channels } in transfers {
        if from == rank {
            sends[to] = Some(select(tensor, &positions(held, &channels)?)?);
        } else if to == rank {
            let mut form = Form::of(tensor);
            form.shape[1] = channels.len() as i64;
            receives[from] = Some(form);
            expected.push((from, channels));
        }
    }
    let mut incoming = comm.send_receive(call, sends, receives)?;
    expected
        .into_iter()
        .map(|(from, channels)| match incoming[from].take() {
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

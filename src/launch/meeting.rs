//! How the ranks of a run that are processes become groups: the first rank of each group makes an NCCL id, which the
//! others get through the store.

use super::world::World;
use crate::comm::Groups;
use crate::comm::nccl::Nccl;
use crate::comm::nccl::communicator::UniqueId;
use crate::comm::nccl::gpu::Gpu;
use crate::error::Result;
use crate::plan::Mesh;
use std::sync::Arc;
use std::time::Duration;

/// The groups of this rank over its GPU. Every rank joins the same groups in the same order, each waiting at most
/// `limit` for the others. `purpose` keeps them apart from other groups of the run.
///
/// # Errors
/// NCCL's and the store's, or not every rank came in time.
pub fn groups(world: &World, purpose: &str, mesh: Mesh, gpu: &Arc<Gpu>, limit: Duration) -> Result<Groups> {
    let join = |name: &str, members: &[usize]| -> Result<Box<Nccl>> {
        let (first, place) = (members[0], members.iter().position(|&member| member == world.who.rank).unwrap_or(0));
        let id = if members.len() > 1 {
            let id = world
                .share(&format!("nccl/{purpose}/{name}/{first}"), first, || Ok(UniqueId::new()?.bytes().to_vec()))?;
            Some(UniqueId::from_bytes(&id)?)
        } else {
            None
        };
        Ok(Box::new(Nccl::join(Arc::clone(gpu), id.as_ref(), place, members, limit)?))
    };
    let everyone: Vec<usize> = (0..mesh.ranks()).collect();
    Ok(Groups {
        world: join("world", &everyone)?,
        model: join("model", &mesh.model_group(world.who.rank))?,
        data: join("data", &mesh.data_group(world.who.rank))?,
    })
}

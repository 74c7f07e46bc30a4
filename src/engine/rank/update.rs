//! The end of a step: gradients are summed over the data axis, each rank of which updates its part of every bucket of
//! weights, and the others get it. The buckets follow each other: while one travels, another is updated.

use super::{Rank, Shard};
use crate::comm::{Call, Form, Stage, Ticket};
use crate::engine::layout::Layout;
use crate::engine::phases::Phase;
use crate::engine::slices::Numbered;
use crate::error::Result;
use crate::model::LayerId;
use std::iter;
use std::sync::Arc;
use tch::{Device, Tensor};

impl Rank {
    /// Starts to sum the gradients of every bucket that is complete when the backward pass has done `layer`; of all that
    /// are left, if it is over.
    pub(super) fn start_reductions(&mut self, layer: Option<LayerId>) -> Result<()> {
        let buckets = self.store.layout.buckets.len();
        while self.reducing.len() < buckets {
            let bucket = buckets - 1 - self.reducing.len();
            let by = self.store.layout.completed_by(bucket);
            if layer.is_some_and(|layer| by.is_some_and(|by| by < layer)) {
                break;
            }
            let parts = self.store.parts(&self.store.gradients, bucket)?;
            let before = self.watch.enter(Phase::Reduce);
            // The update adds the ranks' gradients up on its own way through memory, in fp32 and in rank order.
            let ticket = self.groups.data.start_all_to_all(&call("the gradients", bucket, Stage::Reduce), &parts);
            self.leave_collective(before);
            self.reducing.push_back((bucket, ticket?));
        }
        Ok(())
    }

    /// Updates this rank's part of each bucket with the gradients of all ranks of the data axis, and gathers what the
    /// others have updated. Where steps that are not finite are left out, all gradients must be there before the first
    /// weight is changed.
    pub(super) fn update(&mut self, learning_rate: f64) -> Result<()> {
        let mut gathering = Vec::with_capacity(self.reducing.len());
        if self.skip_nonfinite {
            let arrived = iter::from_fn(|| self.arrived().transpose()).collect::<Result<Vec<_>>>()?;
            if self.all_is_finite(&arrived)? {
                for (bucket, gradients) in arrived {
                    gathering.push(self.update_bucket(bucket, &gradients, learning_rate)?);
                }
            } else {
                self.left_out = Some(self.squares_left_out()?);
            }
        } else {
            while let Some((bucket, gradients)) = self.arrived()? {
                gathering.push(self.update_bucket(bucket, &gradients, learning_rate)?);
            }
        }
        self.finish_gathering(gathering)?;
        self.watch.enter(Phase::Data);
        Ok(())
    }

    /// The gradients of the next bucket under way, from all ranks of the data axis; `None` when there is none.
    fn arrived(&mut self) -> Result<Option<(usize, Vec<Tensor>)>> {
        let Some((bucket, ticket)) = self.reducing.pop_front() else { return Ok(None) };
        self.watch.enter(Phase::Reduce);
        let gradients = self.groups.data.finish(ticket)?.from_all()?;
        self.leave_collective(Phase::Optimizer);
        Ok(Some((bucket, gradients)))
    }

    /// Updates this rank's part of a bucket, and starts to gather what the others update.
    fn update_bucket(&mut self, bucket: usize, gradients: &[Tensor], learning_rate: f64) -> Result<(usize, Ticket)> {
        let shadow = self.store.shadow(bucket)?;
        let (masters, segments) = (&self.store.masters[bucket], self.segments.of(bucket));
        let squares = self.optimizer.step(bucket, masters, shadow.as_ref(), gradients, learning_rate, segments)?;
        self.squares.keep(bucket, squares);
        Ok((bucket, self.start_gathering(bucket, Stage::Update)?))
    }

    /// Brings the weights that the other ranks of the data axis begin with.
    pub(super) fn gather_weights(&mut self, stage: Stage) -> Result<()> {
        let buckets = 0..self.store.layout.buckets.len();
        let started = buckets.map(|bucket| Ok((bucket, self.start_gathering(bucket, stage)?)));
        let started = started.collect::<Result<Vec<_>>>()?;
        self.finish_gathering(started)
    }

    fn start_gathering(&mut self, bucket: usize, stage: Stage) -> Result<Ticket> {
        let own = self.store.own_weights(bucket)?;
        let before = self.watch.enter(Phase::Reduce);
        let ticket = self.groups.data.start_all_gather(&call("the weights", bucket, stage), &own);
        self.leave_collective(before);
        ticket
    }

    fn finish_gathering(&mut self, started: Vec<(usize, Ticket)>) -> Result<()> {
        let before = self.watch.enter(Phase::Reduce);
        for (bucket, ticket) in started {
            let arrived = self.groups.data.finish(ticket)?.from_all()?;
            for (mut part, arrived) in self.store.parts(&self.store.weights, bucket)?.into_iter().zip(arrived) {
                // In memory that the ranks have in common it is there already.
                if part.data_ptr() != arrived.data_ptr() {
                    part.f_copy_(&arrived)?;
                }
            }
        }
        self.leave_collective(before);
        Ok(())
    }

    /// The weights in full precision, in the layout of the store: what the ranks of the data axis keep a shard each of.
    /// Every rank of the axis must call it.
    ///
    /// # Errors
    /// What the collective reports.
    pub fn full_weights(&mut self) -> Result<Tensor> {
        let mut parts = Vec::new();
        for (bucket, master) in self.store.masters.iter().enumerate() {
            parts.extend(self.groups.data.all_gather(&call("the full weights", bucket, Stage::Update), master)?);
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// What this rank alone keeps between steps, in the memory that the next step writes to, with its number.
    pub fn shard(&self) -> Numbered {
        let shallow = |parts: &[Tensor]| parts.iter().map(Tensor::shallow_clone).collect();
        let (masters, velocities) = (shallow(&self.store.masters), self.optimizer.velocities().map(shallow));
        (self.rank, Shard { masters, velocities })
    }

    /// What each rank alone keeps between steps, brought to the first rank, in rank order; nothing on the others.
    ///
    /// # Errors
    /// What the collective reports.
    pub fn shards(&mut self) -> Result<Vec<Numbered>> {
        let (_, Shard { masters, velocities }) = self.shard();
        let masters = self.bring_to_first("the weights", masters)?;
        let velocities = match velocities {
            Some(velocities) => self.bring_to_first("the velocities", velocities)?.into_iter().map(Some).collect(),
            None => masters.iter().map(|_| None).collect::<Vec<_>>(),
        };
        let shards = masters.into_iter().zip(velocities).map(|(masters, velocities)| Shard { masters, velocities });
        Ok(if self.rank == 0 { shards.enumerate().collect() } else { Vec::new() })
    }

    /// The shards of all ranks, a tensor for each bucket, on the first rank; none on the others. One bucket follows the
    /// other: a GPU need not hold more than one of another rank.
    fn bring_to_first(&mut self, what: &str, own: Vec<Tensor>) -> Result<Vec<Vec<Tensor>>> {
        let plan = Arc::clone(&self.plan);
        let (first, bucket) = (self.rank == 0, self.bucket);
        let world = &mut self.groups.world;
        let layouts: Vec<Layout> = (0..plan.mesh.model).map(|place| Layout::new(&plan, place, bucket)).collect();
        let most = layouts.iter().map(|layout| layout.buckets.len()).max().unwrap_or(0);
        let mut shards: Vec<Vec<Tensor>> = (0..world.size()).map(|_| Vec::new()).collect();
        for bucket in 0..most {
            let form = |rank: usize| {
                let layout = &layouts[plan.mesh.model_rank(rank)];
                let part = layout.shard(plan.mesh.data_rank(rank)).get(bucket)?.len();
                Some(Form { shape: vec![part as i64], ..Form::of(&own[0]) })
            };
            let receives = (0..world.size()).map(|rank| form(rank).filter(|_| first)).collect();
            let mut sends: Vec<Option<Tensor>> = (0..world.size()).map(|_| None).collect();
            sends[0] = own.get(bucket).map(Tensor::shallow_clone);
            let arrived = world.send_receive(&call(what, bucket, Stage::Save), sends, receives)?;
            for (shard, part) in shards.iter_mut().zip(arrived) {
                shard.extend(part.map(|part| part.f_to_device(Device::Cpu)).transpose()?);
            }
        }
        Ok(shards)
    }
}

fn call(what: &str, bucket: usize, stage: Stage) -> Call {
    Call::new(&format!("{what} of bucket {bucket}"), stage)
}

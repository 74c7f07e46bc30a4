//! `mpt verify`.

use super::options::{Devices, What, Where, set};
use super::place::check_threads;
use crate::data::Noise;
use crate::engine::job::{plan_of, settings};
use crate::engine::rank::Settings;
use crate::error::{Error, Result};
use crate::keys::suggestion;
use crate::optim::Timeline;
use crate::plan::{Adjoint, Mode, Plan, Read, plan};
use crate::recipe::settings::ExchangePrecision;
use crate::recipe::{Precision, Recipe};
use crate::report::{console, verify_table};
use crate::verify::{Comparison, Trial, observe};
use clap::Args;
use std::sync::Arc;

/// How far tensors may be apart in fp64: what reordered sums come to.
const BOUND_FP64: f64 = 1e-9;
/// How far tensors may be apart in fp32, after some steps of training.
const BOUND_FP32: f64 = 1e-4;
/// How far tensors may be apart in bf16, which keeps 8 bits: roundings at other places, added up over a network.
const BOUND_BF16: f64 = 1e-1;
/// Enough momentum and decay that a fault in either shows.
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;
/// Small enough that five steps on noise do not blow up: in a run that does, the last bits of fp32 grow into the first.
const LEARNING_RATE: f64 = 1e-3;

/// Arguments of `mpt verify`.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    place: Where,
    /// Steps of training; the last one has half a batch
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    steps: u64,
    /// Break the split run on purpose: keep a slice of the gradient before this layer instead of summing it over the
    /// devices; a check that the check can fail
    #[arg(long, value_name = "LAYER")]
    break_adjoint: Option<String>,
}

impl Verify {
    /// Runs the network split and whole, prints how far they are apart, and fails if that is too far.
    ///
    /// # Errors
    /// The runs differ; names the first layer.
    pub fn run(self) -> Result<u8> {
        let devices = self.place.which.devices()?;
        let mut layered = self.what.recipe(&self.place)?;
        if self.place.is_open() && layered.recipe()?.layout()?.0.ranks() == 1 {
            // One device has nothing to compare: the split that AlexNet was made for.
            set(&mut layered, "verify", "parallel.devices", Some(2))?;
            set(&mut layered, "verify", "parallel.mode", Some("model-parallel"))?;
        }
        let asked = layered.recipe()?;
        if asked.train.precision == Precision::Auto {
            set(&mut layered, "verify", "train.precision", Some("fp64"))?;
        }
        devices.fit_own_half(&mut layered)?;
        if !self.what.names_batch_size() {
            set(&mut layered, "verify", "train.batch_size", Some(8))?;
        }
        let recipe = layered.recipe()?;
        if recipe.train.exchange == ExchangePrecision::Half {
            return Err(Error::usage(
                "train.exchange is fp16, which rounds what the whole network does not; check the split with --set train.exchange=full",
            ));
        }
        check_threads(recipe.layout()?.0.ranks())?;
        let whole = plan(&plan_of(&recipe)?.model, Mode::Single.mesh(1)?, Mode::Single)?;
        let split = self.broken(plan_of(&recipe)?)?;
        let trial = trial(&recipe, &whole, self.steps, devices)?;
        let (mesh, mode) = (split.mesh, split.mode);
        let precision = recipe.train.precision.name();
        let heading = format!(
            "{}: {mode} {mesh} against single, {precision}, {} steps, batch {}\n\n",
            whole.model.name, self.steps, trial.batch_size
        );
        let (whole, split) = (Arc::new(whole), Arc::new(split));
        let expected = observe(&whole, &trial)?;
        let found = observe(&split, &trial)?;
        let comparison = Comparison::new(&whole.model, &found, &expected)?;
        console::results(&format!("{heading}{}", verify_table::render(&whole.model, &comparison)))?;
        let bound = match recipe.train.precision {
            Precision::Fp64 => BOUND_FP64,
            Precision::Bf16 => BOUND_BF16,
            Precision::Fp32 | Precision::Auto => BOUND_FP32,
        };
        match comparison.first_difference(&whole.model, bound) {
            None => {
                console::results(&format!(
                    "\nequal: nothing is further apart than {:.1e} (bound {bound:.0e})\n",
                    comparison.largest()
                ))?;
                Ok(0)
            }
            Some(found) => Err(Error::failed(format!(
                "the split run differs from the whole run, first at layer {}: {} is {:.1e} apart (bound {bound:.0e})",
                found.layer, found.what, found.distance
            ))),
        }
    }

    fn broken(&self, mut plan: Plan) -> Result<Plan> {
        let Some(layer) = &self.break_adjoint else { return Ok(plan) };
        let summed = |plan: &Plan, found: usize| -> Option<usize> {
            plan.layers[found].sources.iter().find_map(|source| match source {
                Read::Exchanged(id) if plan.exchanges[*id].adjoint == Adjoint::Sum => Some(*id),
                _ => None,
            })
        };
        let reader = plan.model.layers.iter().position(|found| found.name == *layer);
        match reader.and_then(|reader| summed(&plan, reader)) {
            Some(id) => plan.exchanges[id].adjoint = Adjoint::Slice,
            None => {
                let known = (0..plan.layers.len()).filter(|&found| summed(&plan, found).is_some());
                let known: Vec<&str> = known.map(|found| plan.model.layers[found].name.as_str()).collect();
                let hint = suggestion(layer, known.into_iter());
                return Err(Error::usage(format!(
                    "--break-adjoint: no gradients are summed before layer `{layer}`{hint}"
                )));
            }
        }
        Ok(plan)
    }
}

/// A trial on random continuous images: flat regions would tie in max-pooling, and ties may break either way.
fn trial(recipe: &Recipe, plan: &Plan, steps: u64, devices: Devices) -> Result<Trial> {
    let batch_size = recipe.train.batch_size;
    let examples = batch_size * steps as usize - batch_size / 2;
    let input = plan.model.input;
    let (height, width) = input.pixels.unwrap_or((1, 1));
    let image = [input.channels, height, width];
    let noise = Noise::new(recipe.seed, examples, image, plan.model.classes())?;
    Ok(Trial {
        source: Arc::new(noise),
        batch_size,
        // On a GPU all ranks share the first one: what they exchange stays in its memory.
        settings: Settings {
            device: devices.tensors(0),
            momentum: MOMENTUM,
            weight_decay: WEIGHT_DECAY,
            ..settings(recipe)
        },
        learning_rate: LEARNING_RATE,
        timeline: Timeline::default(),
        threads: 1,
    })
}

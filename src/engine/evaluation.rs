//! The evaluation of weights that a file holds, on the test set of a recipe: what `mpt eval` does. (The loop evaluates what it
//! trains, in `session.rs`; both count the same outcome in the same order.)

use super::agreement::Word;
use super::input::DeviceBatch;
use super::job::{check_devices, plan_of, settings, test_set};
use super::rank::{Rank, Settings};
use super::saving::described;
use super::session::Grouped;
use super::worker::Batches;
use crate::checkpoint::{TensorFile, WeightFile};
use crate::comm::Groups;
use crate::data::{Counts, LoaderOptions, Source};
use crate::error::{Error, Result};
use crate::launch::threads::{self, Reporter};
use crate::layers::{Answers, Outcome};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::torch;
use std::sync::Arc;
use tch::{Device, Tensor};

/// The most classes of which is counted which was answered for which: the counts are as many as their square.
pub const MOST_CLASSES: usize = 1000;
/// The right class is to be among so many.
const LIKELIEST: i64 = 5;

/// What an evaluation needs, checked.
#[derive(Clone)]
pub struct Evaluation {
    plan: Arc<Plan>,
    settings: Settings,
    threads: usize,
    weights: Arc<WeightFile>,
    test: Arc<dyn Source>,
    batch_size: usize,
    readers: usize,
    /// Where the loader counts what it makes.
    pub loaded: Arc<Counts>,
    /// Whether the logits of all examples are kept.
    pub keep_logits: bool,
}

/// What came of an evaluation, each example counted once.
#[derive(Debug)]
pub struct Evaluated {
    /// Loss and right answers.
    pub outcome: Outcome,
    /// What was answered.
    pub tally: Tally,
    /// The logits, `[N, K]`, in the order of the examples, if they were to be kept.
    pub logits: Option<Tensor>,
}

/// Counts of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The number of classes, K.
    pub classes: usize,
    /// Examples whose class was among the five likeliest.
    pub among_five: u64,
    /// Examples of class c that were answered with class a, at `c * K + a`; empty for more classes than [`MOST_CLASSES`].
    pub confusion: Vec<u64>,
}

enum Report {
    /// So many examples are done; their logits, of those of the latest batch.
    Batch(u64, Option<Tensor>),
    Done(Outcome, Tally),
}

impl Evaluation {
    /// The evaluation of the weights in a file on the test set of a recipe, on devices where tensors live on `device`, with so
    /// many threads for each.
    ///
    /// # Errors
    /// The recipe's parts do not fit together, its data cannot be read, or the weights do not fit its model.
    pub fn new(recipe: &Recipe, weights: TensorFile, device: Device, threads: usize) -> Result<Self> {
        let plan = Arc::new(plan_of(recipe)?);
        check_devices(&plan)?;
        let test = test_set(recipe, &plan)?;
        let weights = Arc::new(WeightFile::fitting(weights, &plan.model, &described(&plan.model))?);
        // Without momentum there are no velocities to find room for.
        let settings = Settings { device, momentum: 0.0, ..settings(recipe) };
        let (batch_size, readers) = (recipe.train.batch_size, recipe.data.readers);
        let loaded = Arc::default();
        Ok(Self { plan, settings, threads, weights, test, batch_size, readers, loaded, keep_logits: false })
    }

    /// How the network is split.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The test set.
    pub fn test(&self) -> &dyn Source {
        self.test.as_ref()
    }

    /// Evaluates with those ranks that are in this process, and tells `listen` how many examples are done. Every process gets
    /// what came of all.
    ///
    /// # Errors
    /// A rank failed.
    pub fn run(self, ranks: Grouped, listen: &mut dyn FnMut(u64)) -> Result<Evaluated> {
        let options = LoaderOptions {
            seed: self.settings.seed,
            batch_size: self.batch_size,
            data_ranks: self.plan.mesh.data,
            replicas: self.plan.mesh.model,
            threads: self.readers,
            counts: Arc::clone(&self.loaded),
            ..LoaderOptions::default()
        };
        let streams = ranks.supply.stream(&self.test, options)?;
        let first = ranks.groups.first().map(|(rank, _)| *rank);
        let seats = ranks.groups.into_iter().zip(streams);
        let seats = seats.map(|((rank, groups), batches)| (rank, (groups, batches, Some(rank) == first))).collect();
        let crew = threads::start_some(seats, move |rank, (groups, batches, speaks), reporter| {
            self.work(rank, groups, &batches, Some(reporter).filter(|_| speaks))
        })?;
        let mut crew = crew.interrupted_by(ranks.interrupts);
        let (mut kept, mut done) = (Vec::new(), None);
        while let Some(report) = crew.next_report()? {
            match report {
                Report::Batch(examples, logits) => {
                    kept.extend(logits);
                    listen(examples);
                }
                Report::Done(outcome, tally) => done = Some((outcome, tally)),
            }
        }
        let (outcome, tally) = done.ok_or_else(|| Error::failed("the ranks ended before their work was done"))?;
        let logits = if kept.is_empty() { None } else { Some(Tensor::f_cat(&kept, 0)?) };
        Ok(Evaluated { outcome, tally, logits })
    }

    /// The part of one rank. All know alike what came of it; one of each process reports.
    fn work(
        &self,
        number: usize,
        groups: Groups,
        batches: &Batches,
        reporter: Option<&Reporter<Report>>,
    ) -> Result<()> {
        let Self { plan, settings, test, .. } = self;
        let _no_autograd = tch::no_grad_guard();
        torch::set_threads(self.threads);
        let mut rank = Rank::begun_with(Arc::clone(plan), number, groups, *settings, &self.weights)?;
        let (mut total, mut tally) = (Outcome::default(), Tally::new(plan.model.classes()));
        for batch in batches {
            let batch = batch?;
            let given = DeviceBatch::new(&batch, test.shape(), plan.model.input, settings.kind, settings.device)?;
            let (outcome, logits) = rank.answer(&given)?;
            tally.count(&batch.labels, &Answers::of(&logits, &given.labels)?);
            total.add(&rank.agree(&Word::of(outcome))?.outcome);
            let logits = match self.keep_logits {
                true => Some(rank.gather_rows(&logits, batch.global_examples)?),
                false => None,
            };
            // The accounts are of steps, of which there are none.
            rank.lap()?;
            reporter.map_or(Ok(()), |reporter| reporter.report(Report::Batch(total.examples, logits)))?;
        }
        let tally = tally.with(rank.add_up(&tally.numbers())?);
        reporter.map_or(Ok(()), |reporter| reporter.report(Report::Done(total, tally)))
    }
}

impl Tally {
    fn new(classes: usize) -> Self {
        let cells = if classes > MOST_CLASSES { 0 } else { classes * classes };
        Self { classes, among_five: 0, confusion: vec![0; cells] }
    }

    fn count(&mut self, labels: &[i64], answers: &Answers) {
        self.among_five += answers.before.iter().filter(|&&before| before < LIKELIEST).count() as u64;
        for (&label, &answer) in labels.iter().zip(&answers.likeliest) {
            if let Some(count) = self.confusion.get_mut(label as usize * self.classes + answer as usize) {
                *count += 1;
            }
        }
    }

    /// As it travels.
    fn numbers(&self) -> Vec<u64> {
        std::iter::once(self.among_five).chain(self.confusion.iter().copied()).collect()
    }

    /// The same classes with other counts.
    fn with(&self, numbers: Vec<u64>) -> Self {
        let (among_five, confusion) = numbers.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        Self { classes: self.classes, among_five, confusion: confusion.to_vec() }
    }

    /// The examples of a class, those of them that were answered right, and the examples that were answered with it; `None`
    /// where that is not counted.
    pub fn of_class(&self, class: usize) -> Option<[u64; 3]> {
        let row = self.confusion.get(class * self.classes..(class + 1) * self.classes)?;
        let answered = self.confusion.iter().skip(class).step_by(self.classes).sum();
        Some([row.iter().sum(), row[class], answered])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class() {
        let mut tally = Tally::new(3);
        tally.count(&[0, 0, 2, 1], &Answers { likeliest: vec![0, 2, 2, 2], before: vec![0, 1, 0, 6] });
        assert_eq!((tally.among_five, &tally.confusion[..]), (3, &[1, 0, 1, 0, 0, 1, 0, 0, 1][..]));
        assert_eq!(tally.of_class(0), Some([2, 1, 1]));
        assert_eq!(tally.of_class(2), Some([1, 1, 3]));
        assert_eq!(tally.with(tally.numbers()), tally);
    }

    #[test]
    fn of_very_many_classes_no_square_is_kept() {
        let mut tally = Tally::new(MOST_CLASSES + 1);
        tally.count(&[7], &Answers { likeliest: vec![7], before: vec![0] });
        assert_eq!((tally.among_five, tally.of_class(7)), (1, None));
    }
}

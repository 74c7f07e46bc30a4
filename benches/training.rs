//! What a training step costs in each mode, what the collectives cost and what the loader costs: the workloads of
//! `mpt bench`, through the same code, at sizes that a laptop does in a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::channel::never;
use mpt::bench::exchange::{self, OPERATIONS};
use mpt::bench::loader;
use mpt::bench::workload::{self, Length};
use mpt::data::{MaskSpec, Preparation, Supply};
use mpt::engine::session::{Grouped, Job, Ranks};
use mpt::launch::control::Control;
use mpt::launch::threads;
use mpt::plan::{Mesh, Mode};
use mpt::recipe::Layered;
use std::time::Duration;
use tch::Device;

const BATCH: usize = 128;
/// Bytes that a rank receives in a call.
const RECEIVED: usize = 1 << 20;

/// The time of `steps` training steps on a mesh, the first one, which warms up, left out.
fn steps(mesh: &str, steps: u64) -> Duration {
    let base = Layered::from_recipe("quick").and_then(|layered| layered.recipe()).expect("a shipped recipe");
    let mesh: Mesh = mesh.parse().expect("a mesh");
    let mode = match mesh {
        Mesh { model: 2.., .. } => Mode::ModelParallel,
        Mesh { data: 2.., .. } => Mode::DataParallel,
        _ => Mode::Single,
    };
    let length = Length { warmup: 1, steps };
    let recipe = workload::recipe(&base, mesh, mode, BATCH, length).expect("a layout");
    let job = Job::new(&recipe, Control::default()).expect("a sound recipe");
    workload::steps(job, Ranks::All, length).expect("a run without faults").iter().map(|step| step.time).sum()
}

fn training_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("training step of quick, batch 128");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    for mesh in ["1x1", "1x2", "2x1"] {
        group.bench_with_input(BenchmarkId::from_parameter(mesh), mesh, |bencher, mesh| {
            bencher.iter_custom(|count| steps(mesh, count));
        });
    }
    group.finish();
}

/// Two ranks that are threads.
fn pair() -> Grouped {
    let groups = threads::groups(Mesh { data: 1, model: 2 }).into_iter().enumerate().collect();
    Grouped { supply: Supply::Here, groups, interrupts: never() }
}

fn collectives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("collectives of two ranks, 1 MiB");
    group.throughput(Throughput::Bytes(RECEIVED as u64)).sample_size(10);
    for operation in OPERATIONS {
        group.bench_function(operation.to_string(), |bencher| {
            bencher.iter_custom(|count| {
                let job = exchange::Job { operation, size: RECEIVED, calls: count as usize };
                let rows = exchange::measure(pair(), Device::Cpu, &[job]).expect("ranks without faults");
                Duration::from_secs_f64(rows[0].seconds * count as f64)
            });
        });
    }
    group.finish();
}

fn loading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("loader, batch 128 of 1x28x28");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    let masks = [0, 1].map(|layer| MaskSpec { layer, features: 4096, probability: 0.5 });
    for variant in loader::variants(&masks, &Preparation::default()) {
        group.bench_function(variant.0, |bencher| {
            bencher.iter_custom(|count| {
                let source = workload::images(0, BATCH * count as usize, [1, 28, 28], 10).expect("a sound source");
                let row = loader::measure(&source, BATCH, 0, variant.clone()).expect("a loader without faults");
                Duration::from_secs_f64(row.seconds)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, training_step, collectives, loading);
criterion_main!(benches);

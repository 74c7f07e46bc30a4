//! What a training step costs in each mode, and what the loader costs: the code that `mpt train` runs, on synthetic
//! data, at a size that a laptop does in a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mpt::data::{LoaderOptions, MaskSpec, Noise, Order, start};
use mpt::engine::session::{Job, run};
use mpt::events::Event;
use mpt::launch::control::Control;
use mpt::recipe::Layered;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BATCH: usize = 128;

/// The time of `steps` training steps on a mesh, the first one, which warms up, left out.
fn steps(mesh: &str, steps: u64) -> Duration {
    let mut layered = Layered::from_recipe("quick").expect("a shipped recipe");
    let settings = [
        "data.source=synthetic".to_owned(),
        "data.test_examples=1".to_owned(),
        format!("data.train_examples={BATCH}"),
        format!("train.batch_size={BATCH}"),
        format!("train.epochs={}", steps + 1),
        format!("parallel.mesh={mesh}"),
    ];
    for assignment in &settings {
        layered.set(assignment, "benchmark").expect("a known key");
    }
    let recipe = layered.recipe().expect("a sound recipe");
    let job = Job::new(&recipe, Control::default()).expect("a sound job");
    let mut spent = Duration::ZERO;
    let timed = &mut |event: &Event| match event {
        Event::Step(step) if step.step > 1 => spent += step.time,
        _ => {}
    };
    run(job, timed).expect("a run without faults");
    spent
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

fn loader(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("loader, batch 128 of 1x28x28");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    for (name, layers) in [("plain", 0u32), ("two masks of 4096", 2)] {
        let masks: Vec<MaskSpec> =
            (0..layers).map(|layer| MaskSpec { layer, features: 4096, probability: 0.5 }).collect();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let source = Noise::new(0, BATCH * count as usize, [1, 28, 28], 10).expect("a sound source");
                let order = Order::Shuffled { epoch: 0 };
                let options = LoaderOptions { order, masks: masks.clone(), ..LoaderOptions::default() };
                let begin = Instant::now();
                for stream in start(Arc::new(source), options).expect("a loader") {
                    stream.iter().for_each(|batch| drop(black_box(batch)));
                }
                begin.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, training_step, loader);
criterion_main!(benches);

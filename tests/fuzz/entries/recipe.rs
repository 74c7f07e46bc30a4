//! A recipe: a file that `--recipe` names, or the one that a run has saved.

use super::{Entry, accepted, measured, scratch};
use mpt::engine::job::plan_of;
use mpt::engine::session::Job;
use mpt::launch::control::Control;
use mpt::recipe::settings::SourceKind;
use mpt::recipe::{Layered, Recipe, SHIPPED};
use mpt::report::run_log::runs_of;
use std::fs;
use std::path::Component;
use std::time::Instant;

/// A recipe.
pub const RECIPE: Entry = Entry { name: "recipe", run: recipe, seeds, tokens: &TOKENS };

const TOKENS: [&str; 34] = [
    "base = \"quick\"\n",
    "base = \"hostile.toml\"\n",
    "name = \"../../x\"\n",
    "name = \"/x\"\n",
    "name = \"a/b\"\n",
    "[model]\n",
    "[data]\n",
    "[train]\n",
    "[parallel]\n",
    "[schedule]\n",
    "[checkpoint]\n",
    "[metrics]\n",
    "timeout = \"18446744073709551615s\"\n",
    "meeting = \"1e300d\"\n",
    "max_time = \"584942417355y\"\n",
    "source = \"synthetic\"\n",
    "source = \"noise\"\n",
    "image = [4096, 4096, 4096]\n",
    "classes = 10000\n",
    "train_examples = 100000000\n",
    "mesh = \"1x1024\"\n",
    "mesh = \"2x2\"\n",
    "mode = \"model-parallel\"\n",
    "batch_size = 9223372036854775807\n",
    "own_half = \"on\"\n",
    "every = 5e-324\n",
    "a.",
    "[[",
    "[a.a.a]\n",
    "\"\"\"",
    "{ x = ",
    "nan",
    "-inf",
    "\"\\u001b]0;x\\u0007\"",
];

/// The examples of an epoch whose order takes less than half a gigabyte.
const MOST_EXAMPLES: usize = 1 << 27;

fn recipe(bytes: &[u8]) {
    let path = scratch("hostile.toml");
    fs::write(&path, bytes).expect("a file can be written");
    let named = path.to_str().expect("a path of plain letters");
    let found = measured(bytes, || accepted(Layered::from_recipe(named)));
    let saved = measured(bytes, || accepted(Layered::saved(&path)));
    for layered in found.into_iter().chain(saved) {
        measured(bytes, || look(&layered));
    }
}

fn look(layered: &Layered) {
    let recipe = layered.recipe().expect("it was checked as it was laid");
    let folder = runs_of(&recipe.name, "model");
    let plain = folder.components().all(|part| matches!(part, Component::Normal(_)));
    assert!(plain && folder.components().count() == 2, "the run's folder would be {}", folder.display());
    let spans = [Some(recipe.parallel.timeout), Some(recipe.parallel.meeting), recipe.train.max_time];
    for span in spans.into_iter().flatten() {
        assert!(Instant::now().checked_add(span).is_some(), "a wait of {span:?} has no end");
    }
    let again = scratch("again.toml");
    fs::write(&again, layered.to_toml()).expect("a file can be written");
    let read = Layered::saved(&again).expect("what is saved can be read").recipe().expect("what is saved is sound");
    assert_eq!(read, recipe, "what is saved is not what was read");
    begin(&recipe);
}

/// As far as a run goes before there are ranks; data sets on the disk are another reader's.
fn begin(recipe: &Recipe) {
    if accepted(plan_of(recipe)).is_some() && matches!(recipe.data.source, SourceKind::Synthetic | SourceKind::Noise) {
        let job = accepted(Job::new(recipe, Control::default()));
        let examples = job.map_or(0, |job| job.train.len());
        assert!(examples <= MOST_EXAMPLES, "the order of an epoch of {examples} examples would be kept in memory");
    }
}

/// Shipped ones, and such as are to be refused: a chain without an end, names that lead out of the folder, what is too much.
fn seeds() -> Vec<Vec<u8>> {
    let whole = Layered::from_recipe("quick").expect("a shipped recipe").to_toml();
    let shipped = SHIPPED.iter().map(|(_, text)| text.as_bytes().to_vec());
    let deep = format!("base = \"hostile.toml\"\nabout = \"{}\"\n", "a".repeat(20_000));
    let refused = [
        deep,
        "base = \"quick\"\nname = \"../../x\"\n".to_owned(),
        "base = \"quick\"\nname = \"/x\"\n".to_owned(),
        "base = \"quick\"\n\"\\u001b]0;x\\u0007\" = 1\n".to_owned(),
        "base = \"quick\"\n[parallel]\ntimeout = \"10000000000000000000s\"\n".to_owned(),
        "base = \"quick\"\n[data]\nsource = \"noise\"\ntrain_examples = 5000000000\n".to_owned(),
    ];
    let nested = format!("a{} = 1\n", ".a".repeat(20_000));
    let computed = "base = \"quick\"\n[data]\nsource = \"noise\"\n[parallel]\nmesh = \"1x2\"\n";
    let others = [whole, nested, "[".repeat(50_000), computed.to_owned()];
    shipped.chain(others.into_iter().chain(refused).map(String::into_bytes)).collect()
}

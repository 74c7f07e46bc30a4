//! A model: a file that `--model` names, laid out over devices.

use super::{Entry, accepted, measured, scratch};
use mpt::model::Model;
use mpt::model::parse::Edits;
use mpt::model::rewrite::relu_after_pool;
use mpt::model::shipped::{SHIPPED, load};
use mpt::plan::memory::{CPU_PLACE_BYTES, Sizes};
use mpt::plan::{Mesh, Mode, plan};
use mpt::report::{model_table, plan_table};
use std::fs;

/// A model.
pub const MODEL: Entry = Entry { name: "model", run: model, seeds, tokens: &TOKENS };

const TOKENS: [&str; 32] = [
    "{ kind = \"add\", inputs = [\"image\", \"image\"] },\n",
    "{ kind = \"concat\", inputs = [\"image\", \"image\"] },\n",
    "{ kind = \"flatten\" },\n",
    "{ kind = \"relu\" },\n",
    "{ kind = \"linear\", out = 10 },\n",
    "{ kind = \"softmax-cross-entropy\" },\n",
    "{ kind = \"conv\", out = 4194304, kernel = 1, groups = 2 },\n",
    "{ kind = \"max-pool\", kernel = 2 },\n",
    "{ kind = \"dropout\", probability = 0.5 },\n",
    "inputs = [\"image\"]",
    "name = \"../x\"",
    "\"conv1\"",
    "\"fc4\"",
    "groups = 4194304",
    "stride = 4096",
    "padding = 4096",
    "kernel = 4096",
    "out = 1",
    "out = 4194304",
    "input = [1, 65536, 65536]",
    "input = [65536, 1, 1]",
    "weight_init = { normal = 1e308 }",
    "bias_init = { constant = -1e308 }",
    "probability = 0.9999999999999999",
    "layers = [",
    "]",
    "[[layers]]\n",
    "kind = \"conv\"\n",
    "a.a.a.",
    "\"\\u001b[2J\"",
    "9223372036854775807",
    "-1",
];
/// The devices over which each is laid.
const MESHES: [&str; 4] = ["1x1", "1x2", "1x3", "2x2"];

fn model(bytes: &[u8]) {
    let path = scratch("model.toml");
    fs::write(&path, bytes).expect("a file can be written");
    let read = || accepted(load(path.to_str().expect("a path of plain letters"), &Edits::default()));
    if let Some(model) = measured(bytes, read) {
        measured(bytes, || lay_out(&model));
    }
}

fn lay_out(model: &Model) {
    let rewritten = relu_after_pool(model);
    assert_eq!(rewritten.classes(), model.classes());
    model_table::render(std::slice::from_ref(model));
    let sizes = Sizes {
        batch_size: 128,
        value_bytes: 2,
        master_bytes: 4,
        momentum: true,
        checkpoints: true,
        place_bytes: CPU_PLACE_BYTES,
        data_set: 0,
    };
    for mesh in MESHES.map(|mesh| mesh.parse::<Mesh>().expect("a mesh")) {
        for mode in Mode::ALL.into_iter().filter(|mode| mode.check(mesh).is_ok()) {
            let Some(plan) = accepted(plan(&rewritten, mesh, mode)) else { continue };
            plan_table::render(&plan, sizes);
            plan_table::to_json(&plan.own_part_first(), sizes);
        }
    }
}

/// The shipped ones, and small files of which much could be made.
fn seeds() -> Vec<Vec<u8>> {
    let shipped = SHIPPED.iter().map(|(_, text)| (*text).to_owned());
    let end = "{ kind = \"flatten\" }, { kind = \"linear\", out = 2 }, { kind = \"softmax-cross-entropy\" } ]\n";
    let of = |layers: String| format!("name = \"m\"\ninput = [2, 4, 4]\nlayers = [ {layers} {end}");
    let conv = "{ name = \"c\", kind = \"conv\", out = 2, kernel = 1 },";
    let join = |name: &str, of: &str, times: usize| {
        let inputs = vec![format!("\"{of}\""); times].join(",");
        format!("{{ name = \"{name}\", kind = \"concat\", inputs = [{inputs}] }},")
    };
    let joins = [join("d", "c", 100), join("e", "d", 100), join("f", "e", 100), join("g", "f", 100)].concat();
    let long = format!("{{ name = \"{}\", kind = \"relu\" }},", "a".repeat(20_000));
    let unknown = format!("{{ kind = \"relu\", inputs = [\"{}\"] }},", "b".repeat(20_000));
    let made =
        [of(format!("{conv} {joins}")), of("{ kind = \"relu\" },".repeat(3_000)), of(format!("{long} {unknown}"))];
    shipped.chain(made).map(String::into_bytes).collect()
}

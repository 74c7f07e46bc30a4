//! The record of a run, `metrics.jsonl`, as `mpt show curves` reads and draws it.

use super::{Entry, accepted, emptied, measured};
use mpt::report::curves::{Run, alone, compared};
use mpt::report::curves_table::render;
use mpt::report::epochs;
use mpt::report::gradients::{self, Gradients};
use mpt::report::plot::stacked;
use std::fs;
use std::path::Path;

/// A record.
pub const RECORD: Entry = Entry { name: "record", run: record, seeds, tokens: &TOKENS };

const TOKENS: [&str; 12] = [
    "\n",
    "{\"kind\":\"epoch\",\"epoch\":",
    "\"train_loss\":",
    "\"test_accuracy\":",
    "\"layer_gradient_norms\":{\"",
    "1.7e308",
    "-1.7e308",
    "5e-324",
    "18446744073709551615",
    "null",
    "NaN",
    "\"kind\":\"step\",",
];

const STEP: &str = r#"{"kind":"step","step":1,"epoch":1,"loss":2.3,"layer_gradient_norms":{"conv1":0.5,"fc8":1.25}}"#;
const EPOCH: &str =
    r#"{"kind":"epoch","epoch":1,"step":2,"train_loss":2.1,"train_accuracy":0.2,"test_loss":null,"test_accuracy":0.3}"#;

fn record(bytes: &[u8]) {
    let folder = emptied("record");
    fs::write(folder.join("metrics.jsonl"), bytes).expect("a file can be written");
    measured(bytes, || {
        epochs_of(&folder);
        if let Some(found) = accepted(Gradients::of_run(&folder)) {
            assert!(gradients::tables(std::slice::from_ref(&found)).lines().count() > 2);
            accepted(stacked(&gradients::plots(&[found]))).expect("every record can be drawn");
        }
    });
}

fn epochs_of(folder: &Path) {
    let Some(epochs) = accepted(epochs::of_run(folder)) else { return };
    let run = Run { name: "run".into(), about: String::new(), epochs };
    accepted(alone(&run).svg()).expect("every record can be drawn");
    let runs = [run.clone(), Run { name: "again".into(), ..run }];
    assert!(render(&runs).contains("again"));
    accepted(stacked(&compared(&runs))).expect("every record can be drawn");
}

/// A sound one, one that is cut short, numbers near the ends of what there is, and lines in an order that no run has.
fn seeds() -> Vec<Vec<u8>> {
    let sound = format!("{STEP}\n{STEP}\n{EPOCH}\n");
    let cut = sound[..sound.len() - 20].to_owned();
    let large = sound.replace("2.1", "1.7e308").replace("1.25", "1.79e308");
    let small = sound.replace("2.1", "-1.7e308").replace("1.25", "5e-324");
    let late = format!("{}\n{EPOCH}\n{STEP}\n", EPOCH.replace("\"epoch\":1", "\"epoch\":18446744073709551615"));
    [sound, cut, large, small, late].map(String::into_bytes).to_vec()
}

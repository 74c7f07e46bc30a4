//! The figures of a line of the record under TensorBoard's tags. What stands before the first `/` is a group of plots.

use crate::engine::phases::Phase;
use serde_json::Value;

/// The tags and figures of a line. A figure that is no number (the record has null) is NaN, which TensorBoard marks.
pub fn of(line: &Value) -> Vec<(String, f64)> {
    match line["kind"].as_str() {
        Some("step") => of_step(line),
        Some("epoch") => of_epoch(line),
        _ => Vec::new(),
    }
}

fn of_step(line: &Value) -> Vec<(String, f64)> {
    let mut scalars = Vec::new();
    let mut add = |tag: String, value: &Value| scalars.push((tag, value.as_f64().unwrap_or(f64::NAN)));
    for key in ["loss", "accuracy", "learning_rate", "gradient_norm", "loader_queue"] {
        add(format!("step/{key}"), &line[key]);
    }
    for (layer, norm) in line["layer_gradient_norms"].as_object().into_iter().flatten() {
        add(format!("gradient_norm/{layer}"), norm);
    }
    add("examples_per_second/all".into(), &line["examples_per_second"]);
    for own in line["devices"].as_array().into_iter().flatten() {
        let device = own["device"].as_str().unwrap_or_default();
        add(format!("examples_per_second/{device}"), &own["examples_per_second"]);
        let seconds = |name: &str| own[format!("{name}_seconds")].as_f64().unwrap_or(0.0);
        let names = Phase::ALL.map(Phase::name);
        let whole: f64 = names.iter().map(|name| seconds(name)).sum();
        for name in names.into_iter().chain(["overlapped"]) {
            let share = if whole > 0.0 { seconds(name) / whole } else { 0.0 };
            add(format!("phase_share/{device}/{name}"), &share.into());
        }
    }
    scalars
}

fn of_epoch(line: &Value) -> Vec<(String, f64)> {
    let trained = ["train_loss", "train_accuracy"].map(|key| (key, line[key].as_f64().unwrap_or(f64::NAN)));
    // Not every epoch is evaluated.
    let tested = ["test_loss", "test_accuracy"].into_iter().filter_map(|key| Some((key, line[key].as_f64()?)));
    trained.into_iter().chain(tested).map(|(key, value)| (format!("epoch/{key}"), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_figure_has_a_tag() {
        let line = json!({
            "kind": "step", "step": 3, "loss": null, "accuracy": 0.5, "learning_rate": 0.1, "gradient_norm": 2.0,
            "loader_queue": 4, "layer_gradient_norms": { "conv1": 1.5 }, "examples_per_second": 8.0,
            "devices": [{ "device": "cpu:0", "examples_per_second": 8.0, "forward_seconds": 0.75, "wait_seconds": 0.25,
                          "overlapped_seconds": 0.5 }],
        });
        let scalars = of(&line);
        let value = |tag: &str| {
            let found = scalars.iter().find(|(name, _)| name == tag);
            found.unwrap_or_else(|| panic!("{tag} is not among {scalars:?}")).1
        };
        assert!(value("step/loss").is_nan());
        for (tag, expected) in [
            ("step/accuracy", 0.5),
            ("step/learning_rate", 0.1),
            ("step/gradient_norm", 2.0),
            ("step/loader_queue", 4.0),
            ("gradient_norm/conv1", 1.5),
            ("examples_per_second/all", 8.0),
            ("examples_per_second/cpu:0", 8.0),
            ("phase_share/cpu:0/forward", 0.75),
            ("phase_share/cpu:0/wait", 0.25),
            ("phase_share/cpu:0/data", 0.0),
            ("phase_share/cpu:0/overlapped", 0.5),
        ] {
            assert_eq!(value(tag), expected, "{tag}");
        }
        assert_eq!(scalars.len(), 8 + Phase::ALL.len() + 1);
    }

    #[test]
    fn an_epoch_that_was_not_evaluated_has_no_test_figures() {
        let whole = json!({ "kind": "epoch", "train_loss": 2.0, "train_accuracy": 0.1, "test_loss": 1.0, "test_accuracy": 0.2 });
        let tags: Vec<String> = of(&whole).into_iter().map(|(tag, _)| tag).collect();
        assert_eq!(tags, ["epoch/train_loss", "epoch/train_accuracy", "epoch/test_loss", "epoch/test_accuracy"]);
        let cut = json!({ "kind": "epoch", "train_loss": 2.0, "train_accuracy": 0.1, "test_loss": null });
        assert_eq!(of(&cut), [("epoch/train_loss".to_owned(), 2.0), ("epoch/train_accuracy".to_owned(), 0.1)]);
    }
}

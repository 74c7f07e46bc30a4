//! What a run says of itself before it begins.

use crate::engine::session::Job;
use crate::engine::worker::Assignment;
use crate::plan::Plan;
use crate::report::line::Line;
use crate::report::table::commas;
use crate::report::{console, plan_table};

/// Says the plan, what is left out of the data, and from where weights and position are.
pub fn say(job: &Job) {
    let Assignment { plan, begin, weights, total_steps, .. } = &job.assignment;
    console::say(plan_line(plan));
    job.train.remarks().iter().chain(job.test.remarks()).for_each(console::warn);
    if let Some(weights) = weights {
        let (file, naming) = (weights.path().display().to_string(), weights.naming());
        let message = format!("the weights begin as {file} has them, under {naming}");
        console::say(Line::new("init_from", message).with("file", file));
    }
    if let Some((begun, here)) = begin.as_deref().and_then(|checkpoint| job.other_train_set(checkpoint)) {
        let message = format!("the training set: {here} instead of {begun}, which makes the numbers another run's");
        let line = Line::new("changed", message).with("key", "the training set").with("begun", begun);
        console::say(line.with("now", here).with("free", false));
    }
    if let Some(checkpoint) = begin {
        let (folder, step) = (checkpoint.folder.display().to_string(), checkpoint.state.position.step);
        let message = format!("resumed after step {} of {}, from {folder}", commas(step), commas(*total_steps));
        console::say(Line::new("resumed", message).with("step", step).with("from", folder));
        if step >= *total_steps {
            console::say("nothing is left to train; --epochs N or --steps N goes on longer");
        }
    }
}

fn plan_line(plan: &Plan) -> Line {
    let data = plan.mesh.data;
    let mut exchanges = plan_table::exchange_lines(plan);
    if data > 1 {
        exchanges.push(format!(
            "after backward: gradients summed over {data} ranks, each updating its shard of the weights"
        ));
    }
    let message = format!("plan: {}", plan.title());
    let text = exchanges.iter().fold(message.clone(), |text, exchange| text + "\n  " + exchange);
    Line::new("plan", message)
        .with("model", plan.model.name.as_str())
        .with("mode", plan.mode.to_string())
        .with("mesh", plan.mesh.to_string())
        .with("exchanges", exchanges)
        .shown_as(text)
}

//! The lines at the end of a run.

use crate::events::{Epoch, StopReason, Summary};
use std::fmt::Write;

/// The seed's two lines, and a third with the rate end to end and what was run.
pub fn lines(summary: &Summary, what: &str) -> String {
    let mut text = String::new();
    if let Some(last) = &summary.last {
        text += &line_of(last);
        text.push('\n');
    }
    let devices = summary.devices.join(", ");
    let rate = |time: f64| if time > 0.0 { summary.examples as f64 / time } else { 0.0 };
    let (training, whole) = (rate(summary.train_time.as_secs_f64()), rate(summary.whole_time.as_secs_f64()));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{training:.1} examples/sec on {devices}");
    let _ = writeln!(text, "{whole:.1} examples/sec end to end: {what}");
    text
}

/// `loss 0.327, train acc 0.881, test acc 0.885`.
pub fn line_of(epoch: &Epoch) -> String {
    let mut text = format!("loss {:.3}, train acc {:.3}", epoch.train.loss(), epoch.train.accuracy());
    if let Some(test) = &epoch.test {
        let _ = write!(text, ", test acc {:.3}", test.accuracy());
    }
    text
}

/// Why a run ended before its last step, for people.
pub fn reason(stopped: StopReason) -> &'static str {
    match stopped {
        StopReason::Time => "the time was up",
        StopReason::Steps => "the steps asked for were done",
        StopReason::Signal(_) => "a signal came",
    }
}

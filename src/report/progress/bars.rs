//! The run on a terminal: a bar, and below it a line for each device.

use crate::report::console;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Devices that have a line each: more would push the bar from the screen.
const MOST_LINES: usize = 16;

/// What is drawn. Whatever is said meanwhile stands above it.
pub struct Bars {
    all: MultiProgress,
    bar: ProgressBar,
    devices: Vec<ProgressBar>,
}

impl Bars {
    /// A bar, and lines for so many devices: none for one device, which the bar tells of.
    pub fn new(devices: usize) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let bar = all.add(ProgressBar::no_length());
        let colour = if console::is_coloured() { ".green" } else { "" };
        let styled = |template: &str| ProgressStyle::with_template(template).ok();
        if let Some(style) = styled(&format!("{{prefix}} {{bar:20{colour}}} {{pos}}/{{len}}  {{wide_msg}}")) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let lines = if (2..=MOST_LINES).contains(&devices) { devices } else { 0 };
        let line = || {
            let line = all.add(ProgressBar::no_length());
            if let Some(style) = styled("{wide_msg}") {
                line.set_style(style);
            }
            line
        };
        let devices = (0..lines).map(|_| line()).collect();
        console::stand_above(Some(all.clone()));
        Self { all, bar, devices }
    }

    /// How many devices have a line.
    pub fn lines(&self) -> usize {
        self.devices.len()
    }

    /// Shows how far something is: `done` of `of`.
    pub fn show(&self, prefix: String, done: u64, of: u64, message: String) {
        self.bar.set_length(of);
        self.bar.set_prefix(prefix);
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    /// Shows what each device does.
    pub fn show_devices(&self, lines: Vec<String>) {
        for (bar, line) in self.devices.iter().zip(lines) {
            bar.set_message(line);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // Nothing but an unknown terminal keeps them from being cleared.
        let _ = self.all.clear();
        console::stand_above(None);
    }
}

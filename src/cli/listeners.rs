//! Who hears what happens in a run: progress for people, the record of the run, metrics. The loop knows none of them.

use super::endpoint::Endpoint;
use crate::events::Event;
use crate::report::console;
use crate::report::progress::{Progress, left_out, not_linked, not_saved, unread};
use crate::report::run_log::RunLog;
use std::io::IsTerminal;
use std::time::Instant;

/// All who listen to a run in this process.
pub struct Listeners {
    /// `None`: nothing is said but what has gone wrong.
    progress: Option<Progress>,
    log: Option<RunLog>,
    endpoint: Option<Endpoint>,
}

impl Listeners {
    /// The listeners of a run of a program that began at `begin`.
    pub fn new(begin: Instant, quiet: bool, log: Option<RunLog>, endpoint: Option<Endpoint>) -> Self {
        let progress = (!quiet).then(|| Progress::new(begin, std::io::stderr().is_terminal()));
        Self { progress, log, endpoint }
    }

    /// Tells all of them what happened. The endpoint first: whoever reads what progress says finds it there already.
    pub fn hear(&mut self, event: &Event) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.hear(event);
        }
        match (&mut self.progress, event) {
            (Some(progress), _) => progress.event(event),
            (None, Event::NotSaved { step, problem }) => console::say(not_saved(*step, problem)),
            (None, Event::NotLinked(problem)) => console::say(not_linked(problem)),
            (None, Event::Unread(problems)) => problems.iter().for_each(|problem| console::say(unread(problem))),
            (None, Event::Step(step)) => {
                if let Some(line) = left_out(step) {
                    console::say(line);
                }
            }
            _ => {}
        }
        if let Some(log) = &mut self.log {
            log.event(event);
        }
    }
}

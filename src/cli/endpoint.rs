//! The metrics of a run and the port at which they are served. The port is taken before anything begins, so that one
//! that is in use is told before there are ranks.

use super::place::Place;
use crate::data::Supply;
use crate::engine::session::Job;
use crate::error::Result;
use crate::events::Event;
use crate::metrics::server::{Port, Server};
use crate::metrics::{Metrics, Watched};
use crate::recipe::Recipe;
use crate::report::console;
use crate::report::line::Line;
use std::sync::Arc;

/// Metrics that are served.
pub struct Endpoint {
    metrics: Arc<Metrics>,
    _server: Server,
}

/// Takes the port that a recipe asks for, if it asks for one and this process serves for its host.
///
/// # Errors
/// The port cannot be had.
pub fn port(recipe: &Recipe, place: &Place) -> Result<Option<Port>> {
    let asked = recipe.metrics.addr.as_ref().filter(|_| place.serves());
    asked.map(Port::take).transpose()
}

impl Endpoint {
    /// Serves the metrics of a job at a port, of the devices of this host, and says where, unless told to be quiet about a port that was named.
    /// `None`: the first rank of the host is in another process, which does.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn open(port: Port, recipe: &Recipe, job: &Job, supply: &Supply, quiet: bool) -> Result<Option<Self>> {
        if let Supply::Other { first, .. } = supply {
            console::say(Line::new("metrics", format!("metrics: rank {first} serves those of all ranks of this host")));
            return Ok(None);
        }
        let metrics = Arc::new(Metrics::new(&Watched {
            plan: Arc::clone(&job.assignment.plan),
            devices: job.devices.clone(),
            shown: supply.ranks(job.devices.len()),
            precision: recipe.train.precision.resolved().name(),
            loader: Arc::clone(&job.loaded),
        })?);
        if !quiet || recipe.metrics.addr.as_ref().is_some_and(|asked| asked.port == 0) {
            let (url, page) = (format!("{port}/metrics"), format!("{port}/"));
            console::say(
                Line::new("metrics", format!("metrics: {url}, live page: {page}")).with("url", url).with("page", page),
            );
        }
        let _server = Server::start(port, Arc::clone(&metrics))?;
        Ok(Some(Self { metrics, _server }))
    }

    /// Takes note of what happened.
    pub fn hear(&self, event: &Event) {
        self.metrics.event(event);
    }
}

//! How families of series are made: each with its name, its help and its labels, in one registry.

use crate::error::{Error, Result};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// What all names begin with.
const PREFIX: &str = "mpt";

/// The registry of a run. Its methods give series that are there from then on: counters at 0, gauges not yet known.
pub struct Series(Registry);

impl Series {
    /// A registry with what the system tells of the process.
    ///
    /// # Errors
    /// Names collide, which is a fault of mpt; so for all of these.
    pub fn new() -> Result<Self> {
        let series = Self(Registry::new());
        series.0.register(Box::new(ProcessCollector::for_self())).map_err(fault)?;
        Ok(series)
    }

    /// A counter.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(name, help)).map_err(fault)?)
    }

    /// Counters of whole numbers, by labels.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(name, help), labels).map_err(fault)?)
    }

    /// Counters of seconds, by labels.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn times(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec> {
        self.register(CounterVec::new(opts(name, help), labels).map_err(fault)?)
    }

    /// A gauge.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        let gauge = self.register(Gauge::with_opts(opts(name, help)).map_err(fault)?)?;
        gauge.set(f64::NAN);
        Ok(gauge)
    }

    /// Gauges, by labels.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.register(GaugeVec::new(opts(name, help), labels).map_err(fault)?)
    }

    /// A series that is 1 and whose labels tell something.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn info(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<()> {
        let (names, values): (Vec<&str>, Vec<&str>) = labels.iter().copied().unzip();
        self.gauges(name, help, &names)?.with_label_values(&values).set(1.0);
        Ok(())
    }

    /// A histogram with buckets up to these bounds.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Result<Histogram> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(bounds.to_vec());
        self.register(Histogram::with_opts(opts).map_err(fault)?)
    }

    /// What all series are now, by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone())).map_err(fault)?;
        Ok(collector)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}

fn fault(error: prometheus::Error) -> Error {
    Error::failed(format!("a family of metrics cannot be made: {error}"))
}

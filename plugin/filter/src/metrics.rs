//! Measurements into the host's statistics.
//!
//! A series is defined when it first has a value, and its number kept: from then on a measurement is one
//! call of the host. Statistics that the host refuses are said once in the log and then left alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use toolgate_core::{Gateway, Measurement, MetricKind, configuration_series};

use crate::abi::{self, Metric, Status};

/// What became of defining a series.
#[derive(Clone, Copy)]
enum Defined {
    Counter(u32),
    Histogram(u32),
    /// The host does not have it.
    Refused,
}

thread_local! {
    /// The host's numbers by name. Every configuration gives the same name the same number, since each
    /// definition costs the host memory.
    static BY_NAME: RefCell<HashMap<Rc<str>, Defined>> = RefCell::default();
}

/// Series of one gateway, by their numbers there.
#[derive(Default)]
pub(crate) struct Recorder(RefCell<Vec<Option<Defined>>>);

impl Recorder {
    /// Records everything that was measured since the last time.
    pub(crate) fn record(&self, gateway: &Gateway) {
        let mut defined = self.0.borrow_mut();
        gateway.take_measurements(|Measurement { series, value }| {
            let index = series.index();
            if defined.len() <= index {
                defined.resize(index + 1, None);
            }
            let Some(known) = defined.get_mut(index) else { return };
            let metric = *known.get_or_insert_with(|| {
                gateway.metric(series).map_or(Defined::Refused, |(kind, name)| define(kind, name))
            });
            add(metric, value);
        });
    }
}

/// Counts a configuration that the host handed over.
pub(crate) fn count_configuration(accepted: bool) {
    add(define(MetricKind::Counter, configuration_series(accepted).into()), 1);
}

fn define(kind: MetricKind, name: Rc<str>) -> Defined {
    if let Some(known) = BY_NAME.with_borrow(|known| known.get(&name).copied()) {
        return known;
    }
    let defined = match kind {
        MetricKind::Counter => abi::define_metric(Metric::Counter, &name).map(Defined::Counter),
        MetricKind::Histogram => {
            abi::define_metric(Metric::Histogram, &name).map(Defined::Histogram)
        }
    };
    let defined = defined.unwrap_or_else(|Status(status)| {
        log::error!("the metric {name} could not be defined: status {status}");
        Defined::Refused
    });
    BY_NAME.with_borrow_mut(|known| known.insert(name, defined));
    defined
}

fn add(metric: Defined, value: u64) {
    let added = match metric {
        Defined::Counter(metric) => abi::increment_metric(metric, value),
        Defined::Histogram(metric) => abi::record_metric(metric, value),
        Defined::Refused => return,
    };
    if let Err(Status(status)) = added {
        log::error!("a metric could not be recorded: status {status}");
    }
}

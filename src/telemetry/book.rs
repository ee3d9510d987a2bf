//! The book in which metrics are entered and from which they are read.
//!
//! It knows the kinds of metrics and no metric by name. It is no global: two gateways in one
//! process count apart.
//!
//! Start reading in [`Row`]; the rows themselves stand in [`metrics`](super::metrics).

use super::family::Family;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, Result, TextEncoder};

/// A metric's name, what it says, and its labels.
#[derive(Clone, Copy)]
pub(super) struct Row<const N: usize> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: [&'static str; N],
}

/// A row of the table.
pub(super) const fn row<const N: usize>(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Row<N> {
    Row { name, help, labels }
}

/// Every method enters one row; it fails when a name is no name, or taken.
pub(super) struct Book(Registry);

impl Book {
    /// What the system tells of the process, and nothing else yet.
    pub(super) fn new() -> Result<Self> {
        let book = Self(Registry::new());
        #[cfg(target_os = "linux")]
        book.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(book)
    }

    pub(super) fn counter(&self, row: Row<0>) -> Result<IntCounter> {
        self.enter(IntCounter::new(row.name, row.help)?)
    }

    pub(super) fn gauge(&self, row: Row<0>) -> Result<IntGauge> {
        self.enter(IntGauge::new(row.name, row.help)?)
    }

    pub(super) fn histogram(&self, row: Row<0>, buckets: &[f64]) -> Result<Histogram> {
        self.enter(Histogram::with_opts(HistogramOpts::new(row.name, row.help).buckets(buckets.into()))?)
    }

    pub(super) fn counters<const N: usize>(&self, row: Row<N>) -> Result<Family<IntCounter, N>> {
        self.enter(Family::new(row, MetricType::COUNTER, IntCounter::with_opts)?)
    }

    pub(super) fn gauges<const N: usize>(&self, row: Row<N>) -> Result<Family<IntGauge, N>> {
        self.enter(Family::new(row, MetricType::GAUGE, IntGauge::with_opts)?)
    }

    pub(super) fn histograms<const N: usize>(
        &self,
        row: Row<N>,
        buckets: &'static [f64],
    ) -> Result<Family<Histogram, N>> {
        let make = |opts| Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.into()));
        self.enter(Family::new(row, MetricType::HISTOGRAM, make)?)
    }

    /// A counter somebody else keeps, asked for when it is rendered.
    pub(super) fn watched(&self, row: Row<0>, read: impl Fn() -> u64 + Send + Sync + 'static) -> Result<()> {
        let show = |metric: &mut Metric, value| {
            let mut count = Counter::default();
            count.set_value(value);
            metric.set_counter(count);
        };
        self.0.register(Box::new(Watched { lender: IntCounter::new(row.name, row.help)?, read, show }))
    }

    /// A gauge somebody else keeps, asked for when it is rendered.
    pub(super) fn watched_gauge(&self, row: Row<0>, read: impl Fn() -> u64 + Send + Sync + 'static) -> Result<()> {
        let show = |metric: &mut Metric, value| {
            let mut level = Gauge::default();
            level.set_value(value);
            metric.set_gauge(level);
        };
        self.0.register(Box::new(Watched { lender: IntGauge::new(row.name, row.help)?, read, show }))
    }

    /// Everything in Prometheus' text format, sorted by name and labels.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let encoded = TextEncoder::new().encode_utf8(&self.0.gather(), &mut text);
        encoded.expect("writing to a string cannot fail, and empty families are not gathered");
        text
    }

    fn enter<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

struct Watched<C, F> {
    /// Lends its name and kind; its own value stays zero.
    lender: C,
    read: F,
    show: fn(&mut Metric, f64),
}

impl<C: Collector, F: Fn() -> u64 + Send + Sync> Collector for Watched<C, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.lender.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metric = Metric::default();
        (self.show)(&mut metric, (self.read)() as f64);
        let mut families = self.lender.collect();
        families.iter_mut().for_each(|family| family.set_metric(vec![metric.clone()]));
        families
    }
}

//! The registry of metrics, and the types of metric it can hold.
//!
//! It knows no metric by name. It is not a global, so two gateways in one process count separately.
//!
//! Start reading in [`MetricRegistry`]; the metrics are listed in [`metrics`](super::metrics).

use super::labelled::{LabelledMetric, MetricSpec};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use prometheus::{Gauge as FloatGauge, Histogram, HistogramOpts, IntCounter, IntGauge, Registry, Result, TextEncoder};

/// The metrics of one gateway. Every method registers one; it fails when the name is invalid or in use.
pub(super) struct MetricRegistry(Registry);

impl MetricRegistry {
    /// With the metrics of the process, `process_*`, and no others.
    pub(super) fn new() -> Result<Self> {
        let registry = Self(Registry::new());
        #[cfg(target_os = "linux")]
        registry.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(registry)
    }

    pub(super) fn counter(&self, spec: MetricSpec<0>) -> Result<IntCounter> {
        self.register(IntCounter::new(spec.name, spec.help)?)
    }

    pub(super) fn gauge(&self, spec: MetricSpec<0>) -> Result<IntGauge> {
        self.register(IntGauge::new(spec.name, spec.help)?)
    }

    pub(super) fn float_gauge(&self, spec: MetricSpec<0>) -> Result<FloatGauge> {
        self.register(FloatGauge::new(spec.name, spec.help)?)
    }

    pub(super) fn histogram(&self, spec: MetricSpec<0>, buckets: &[f64]) -> Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(spec.name, spec.help).buckets(buckets.into()))?)
    }

    pub(super) fn counters<const N: usize>(&self, spec: MetricSpec<N>) -> Result<LabelledMetric<IntCounter, N>> {
        self.register(LabelledMetric::new(spec, MetricType::COUNTER, IntCounter::with_opts)?)
    }

    pub(super) fn gauges<const N: usize>(&self, spec: MetricSpec<N>) -> Result<LabelledMetric<IntGauge, N>> {
        self.register(LabelledMetric::new(spec, MetricType::GAUGE, IntGauge::with_opts)?)
    }

    pub(super) fn float_gauges<const N: usize>(&self, spec: MetricSpec<N>) -> Result<LabelledMetric<FloatGauge, N>> {
        self.register(LabelledMetric::new(spec, MetricType::GAUGE, FloatGauge::with_opts)?)
    }

    pub(super) fn histograms<const N: usize>(
        &self,
        spec: MetricSpec<N>,
        buckets: &'static [f64],
    ) -> Result<LabelledMetric<Histogram, N>> {
        let make = |opts| Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.into()));
        self.register(LabelledMetric::new(spec, MetricType::HISTOGRAM, make)?)
    }

    /// A counter whose value `read` returns each time it is rendered.
    pub(super) fn callback_counter(
        &self,
        spec: MetricSpec<0>,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<()> {
        let set = |metric: &mut Metric, value| {
            let mut count = Counter::default();
            count.set_value(value);
            metric.set_counter(count);
        };
        self.0.register(Box::new(CallbackMetric { template: IntCounter::new(spec.name, spec.help)?, read, set }))
    }

    /// A gauge whose value `read` returns each time it is rendered.
    pub(super) fn callback_gauge(
        &self,
        spec: MetricSpec<0>,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<()> {
        let set = |metric: &mut Metric, value| {
            let mut level = Gauge::default();
            level.set_value(value);
            metric.set_gauge(level);
        };
        self.0.register(Box::new(CallbackMetric { template: IntGauge::new(spec.name, spec.help)?, read, set }))
    }

    /// Everything in Prometheus' text format, sorted by name and labels.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let encoded = TextEncoder::new().encode_utf8(&self.0.gather(), &mut text);
        encoded.expect("writing to a string cannot fail, and empty families are not gathered");
        text
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

struct CallbackMetric<C, F> {
    /// Provides the name and the type; its own value stays zero.
    template: C,
    read: F,
    set: fn(&mut Metric, f64),
}

impl<C: Collector, F: Fn() -> u64 + Send + Sync> Collector for CallbackMetric<C, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.template.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metric = Metric::default();
        (self.set)(&mut metric, (self.read)() as f64);
        let mut families = self.template.collect();
        families.iter_mut().for_each(|family| family.set_metric(vec![metric.clone()]));
        families
    }
}

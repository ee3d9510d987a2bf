//! A metric with labels: one child per distinct set of label values.
//!
//! It replaces the `MetricVec` of the `prometheus` crate, which identifies children by a hash of their
//! concatenated label values: `("a", "bc")` and `("ab", "c")` would be one series. Here values are
//! compared one by one, and a child is found without building a string.
//!
//! Start reading in [`LabelledMetric::with`].

use super::labels::Label;
use foldhash::fast::FixedState;
use parking_lot::RwLock;
use prometheus::core::{Collector, Desc, Metric};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Opts, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// A metric's name, help text and label names.
#[derive(Clone, Copy)]
pub(super) struct MetricSpec<const N: usize> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: [&'static str; N],
}

/// A shorthand for the table in [`metrics`](super::metrics).
pub(super) const fn spec<const N: usize>(
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
) -> MetricSpec<N> {
    MetricSpec { name, help, labels }
}

/// A metric with `N` labels. A clone is the same metric.
#[derive(Clone)]
pub(super) struct LabelledMetric<M, const N: usize>(Arc<LabelledMetricInner<M, N>>);

struct LabelledMetricInner<M, const N: usize> {
    desc: Desc,
    kind: MetricType,
    labels: [&'static str; N],
    make: Box<dyn Fn(Opts) -> Result<M> + Send + Sync>,
    /// With a fast hash and a fixed seed: no client chooses a label.
    children: RwLock<HashMap<[Label; N], M, FixedState>>,
}

impl<M: Metric, const N: usize> LabelledMetric<M, N> {
    /// A metric without children; `make` creates one.
    ///
    /// # Errors
    /// The name of the metric or of a label is not valid in Prometheus.
    pub(super) fn new(
        spec: MetricSpec<N>,
        kind: MetricType,
        make: impl Fn(Opts) -> Result<M> + Send + Sync + 'static,
    ) -> Result<Self> {
        let names = spec.labels.map(str::to_owned).into();
        let desc = Desc::new(spec.name.into(), spec.help.into(), names, HashMap::new())?;
        let (labels, make, children) = (spec.labels, Box::new(make), RwLock::default());
        Ok(Self(Arc::new(LabelledMetricInner { desc, kind, labels, make, children })))
    }

    /// The child with these label values, in the order of their declaration. It is created if it is new.
    pub(super) fn with(&self, values: [Label; N]) -> M {
        if let Some(child) = self.known(&values) {
            return child;
        }
        let mut children = self.0.children.write();
        children.entry(values).or_insert_with_key(|values| self.make(values)).clone()
    }

    /// The child with these label values, if there is one.
    pub(super) fn known(&self, values: &[Label; N]) -> Option<M> {
        self.0.children.read().get(values).cloned()
    }

    /// Drops the children for whose label values `keep` returns `false`.
    pub(super) fn retain(&self, keep: impl Fn(&[Label; N]) -> bool) {
        self.0.children.write().retain(|values, _| keep(values));
    }

    fn make(&self, values: &[Label; N]) -> M {
        let opts = Opts::new(&*self.0.desc.fq_name, &*self.0.desc.help);
        let pairs = self.0.labels.iter().zip(values);
        let opts = pairs.fold(opts, |opts, (name, value)| opts.const_label(*name, value.as_str()));
        (self.0.make)(opts).expect("the names were checked in `new`, and every value is valid")
    }
}

impl<M: Metric, const N: usize> Collector for LabelledMetric<M, N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let children = self.0.children.read();
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(self.0.kind);
        family.set_metric(children.values().map(Metric::metric).collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::IntCounter;

    #[test]
    fn values_with_the_same_concatenation_are_different_children() {
        let hops = spec("hops_total", "Hops.", ["from", "to"]);
        let family =
            LabelledMetric::new(hops, MetricType::COUNTER, IntCounter::with_opts).expect("the names are valid");
        let values = |from: &'static str, to: &'static str| [Label::Word(from), Label::Word(to)];
        family.with(values("eu", "us-1")).inc_by(1);
        family.with(values("euus", "-1")).inc_by(10);
        family.with([Label::Name("eu".into()), Label::Name("us-1".into())]).inc_by(100);
        assert_eq!(family.with(values("eu", "us-1")).get(), 101);
        assert_eq!(family.with(values("euus", "-1")).get(), 10);
    }
}

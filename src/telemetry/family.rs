//! A metric with labels: one child per distinct set of label values.
//!
//! It stands in for the crate's own vectors, which tell children apart by a hash of their label
//! values run together: `("a", "bc")` and `("ab", "c")` would be one series. Here values are
//! compared one by one, and a child is found without building a string.
//!
//! Start reading in [`Family::with`].

use super::book::Row;
use super::labels::Label;
use foldhash::fast::FixedState;
use prometheus::core::{Collector, Desc, Metric};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Opts, Result};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// A metric with `N` labels; a clone is the same family.
#[derive(Clone)]
pub(super) struct Family<M, const N: usize>(Arc<Inner<M, N>>);

struct Inner<M, const N: usize> {
    desc: Desc,
    kind: MetricType,
    labels: [&'static str; N],
    make: Box<dyn Fn(Opts) -> Result<M> + Send + Sync>,
    /// Hashed quickly and always alike: no client chooses a label.
    children: RwLock<HashMap<[Label; N], M, FixedState>>,
}

impl<M: Metric, const N: usize> Family<M, N> {
    /// A family without children, which `make` makes.
    ///
    /// # Errors
    /// The name of the metric or of a label is not one Prometheus takes.
    pub(super) fn new(
        row: Row<N>,
        kind: MetricType,
        make: impl Fn(Opts) -> Result<M> + Send + Sync + 'static,
    ) -> Result<Self> {
        let names = row.labels.map(str::to_owned).into();
        let desc = Desc::new(row.name.into(), row.help.into(), names, HashMap::new())?;
        let (labels, make, children) = (row.labels, Box::new(make), RwLock::default());
        Ok(Self(Arc::new(Inner { desc, kind, labels, make, children })))
    }

    /// The child with these label values, in the order of the declaration, made if it is new.
    pub(super) fn with(&self, values: [Label; N]) -> M {
        if let Some(child) = self.known(&values) {
            return child;
        }
        let mut children = self.0.children.write().unwrap_or_else(PoisonError::into_inner);
        children.entry(values).or_insert_with_key(|values| self.make(values)).clone()
    }

    /// The child with these label values, if there is one.
    pub(super) fn known(&self, values: &[Label; N]) -> Option<M> {
        self.0.children.read().unwrap_or_else(PoisonError::into_inner).get(values).cloned()
    }

    /// Drops the children whose label values do not pass.
    pub(super) fn retain(&self, keep: impl Fn(&[Label; N]) -> bool) {
        self.0.children.write().unwrap_or_else(PoisonError::into_inner).retain(|values, _| keep(values));
    }

    fn make(&self, values: &[Label; N]) -> M {
        let opts = Opts::new(&*self.0.desc.fq_name, &*self.0.desc.help);
        let pairs = self.0.labels.iter().zip(values);
        let opts = pairs.fold(opts, |opts, (name, value)| opts.const_label(*name, value.as_str()));
        (self.0.make)(opts).expect("the family took these names, and every value is a valid label value")
    }
}

impl<M: Metric, const N: usize> Collector for Family<M, N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let children = self.0.children.read().unwrap_or_else(PoisonError::into_inner);
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
    use crate::telemetry::book::row;
    use prometheus::IntCounter;

    #[test]
    fn values_that_read_the_same_run_together_are_different_children() {
        let hops = row("hops_total", "Hops.", ["from", "to"]);
        let family = Family::new(hops, MetricType::COUNTER, IntCounter::with_opts).expect("the names are valid");
        let values = |from: &'static str, to: &'static str| [Label::Word(from), Label::Word(to)];
        family.with(values("eu", "us-1")).inc_by(1);
        family.with(values("euus", "-1")).inc_by(10);
        family.with([Label::Name("eu".into()), Label::Name("us-1".into())]).inc_by(100);
        assert_eq!(family.with(values("eu", "us-1")).get(), 101);
        assert_eq!(family.with(values("euus", "-1")).get(), 10);
    }
}

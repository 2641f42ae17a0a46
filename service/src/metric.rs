//! The description of a metric. It is what a metric is registered from, what `docs/metrics.md` is made of, and what dashboards
//! and alerts are checked against.

mod page;

pub use page::metrics_page;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only grows, and begins at 0 with its process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// The values that a label can have.
#[derive(Debug, Clone, Copy)]
pub enum LabelValues {
    /// Names from the configuration. The text says which.
    Configured(&'static str),
    /// The words that the function returns, and no others.
    Words(fn() -> Vec<&'static str>),
}

/// A label of a metric.
#[derive(Debug, Clone, Copy)]
pub struct LabelSpec {
    /// The label's name.
    pub name: &'static str,
    /// The values that it can have.
    pub values: LabelValues,
}

/// The way in which a metric's values of several replicas become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaAggregation {
    /// Each replica reports its own part.
    Sum,
    /// Each replica reports the same, or the highest value is the one that matters.
    Max,
    /// The lowest value is the one that matters.
    Min,
}

impl ReplicaAggregation {
    /// Returns the aggregation's operator in Prometheus' queries.
    pub const fn operator(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Min => "min",
        }
    }
}

/// One metric of a program.
#[derive(Debug, Clone, Copy)]
pub struct MetricSpec {
    /// The whole name, with the unit at its end.
    pub name: &'static str,
    /// One sentence for whoever reads the value.
    pub help: &'static str,
    /// The kind, which the type of the registered metric must agree with.
    pub kind: MetricKind,
    /// The labels, in the order in which values are given.
    pub labels: &'static [LabelSpec],
    /// The aggregation over replicas.
    pub over_replicas: ReplicaAggregation,
}

impl MetricSpec {
    /// Returns a counter without labels.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricKind::Counter)
    }

    /// Returns a gauge without labels.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricKind::Gauge)
    }

    /// Returns a histogram without labels.
    pub const fn histogram(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self::new(name, help, MetricKind::Histogram(buckets))
    }

    const fn new(name: &'static str, help: &'static str, kind: MetricKind) -> Self {
        Self { name, help, kind, labels: &[], over_replicas: ReplicaAggregation::Sum }
    }

    /// Returns the metric with these labels.
    #[must_use]
    pub const fn by(self, labels: &'static [LabelSpec]) -> Self {
        Self { labels, ..self }
    }

    /// Returns the metric with another aggregation over replicas than the sum.
    #[must_use]
    pub const fn over_replicas(self, over_replicas: ReplicaAggregation) -> Self {
        Self { over_replicas, ..self }
    }

    /// Returns the unit that the name ends with.
    pub fn unit(&self) -> &'static str {
        let base = self.name.strip_suffix("_total").unwrap_or(self.name);
        match base {
            _ if base.ends_with("_timestamp_seconds") => "seconds since 1970",
            _ if base.ends_with("_seconds") => "seconds",
            _ if base.ends_with("_bytes") => "bytes",
            _ => "number",
        }
    }

    /// Creates the metric and registers it.
    ///
    /// # Errors
    ///
    /// The name is not valid or already registered, or the metric's type is of another kind.
    pub fn register<M: RegisteredMetric>(&self, registry: &Registry) -> Result<M, Error> {
        let metric = M::create(self)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn options(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }

    fn expect_kind(&self, kind: MetricKind) -> Result<(), Error> {
        let agrees = std::mem::discriminant(&self.kind) == std::mem::discriminant(&kind);
        agrees.then_some(()).ok_or_else(|| Error::Msg(format!("{} is no {kind:?}", self.name)))
    }

    fn histogram_options(&self) -> Result<HistogramOpts, Error> {
        let MetricKind::Histogram(buckets) = self.kind else {
            return Err(Error::Msg(format!("{} is no histogram", self.name)));
        };
        Ok(HistogramOpts::from(self.options()).buckets(buckets.to_vec()))
    }
}

/// A type of metric that can be made from its description.
pub trait RegisteredMetric: Collector + Clone + 'static {
    /// Creates the metric.
    ///
    /// # Errors
    ///
    /// The name or a label is not valid, or the description is of another kind.
    fn create(spec: &MetricSpec) -> Result<Self, Error>;
}

impl RegisteredMetric for IntCounter {
    fn create(spec: &MetricSpec) -> Result<Self, Error> {
        spec.expect_kind(MetricKind::Counter)?;
        Self::with_opts(spec.options())
    }
}

impl RegisteredMetric for IntCounterVec {
    fn create(spec: &MetricSpec) -> Result<Self, Error> {
        spec.expect_kind(MetricKind::Counter)?;
        Self::new(spec.options(), &spec.label_names())
    }
}

impl RegisteredMetric for IntGauge {
    fn create(spec: &MetricSpec) -> Result<Self, Error> {
        spec.expect_kind(MetricKind::Gauge)?;
        Self::with_opts(spec.options())
    }
}

impl RegisteredMetric for IntGaugeVec {
    fn create(spec: &MetricSpec) -> Result<Self, Error> {
        spec.expect_kind(MetricKind::Gauge)?;
        Self::new(spec.options(), &spec.label_names())
    }
}

impl RegisteredMetric for Histogram {
    fn create(spec: &MetricSpec) -> Result<Self, Error> {
        Self::with_opts(spec.histogram_options()?)
    }
}

impl RegisteredMetric for HistogramVec {
    fn create(spec: &MetricSpec) -> Result<Self, Error> {
        Self::new(spec.histogram_options()?, &spec.label_names())
    }
}

/// Creates the series of every combination of these values, one list for each label. A counter that appears only when it first
/// counts hides that count from `increase` and `rate`.
pub fn create_series<B: MetricVecBuilder>(metric: &MetricVec<B>, values: &[&[&str]]) {
    let mut combinations: Vec<Vec<&str>> = vec![Vec::new()];
    for values in values {
        let with =
            |begun: &Vec<_>| values.iter().map(|value| [begun.as_slice(), &[*value]].concat()).collect::<Vec<_>>();
        combinations = combinations.iter().flat_map(with).collect();
    }
    for combination in combinations {
        metric.with_label_values(&combination);
    }
}

/// Declares the metrics of one part of a program: the catalogue of their descriptions, and a struct with a field for each, which
/// `register` creates from the catalogue.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$catalogue_doc:meta])* $catalogue_visibility:vis const $catalogue:ident;
        $(#[$doc:meta])* $visibility:vis struct $name:ident { $($field:ident: $type:ty = $spec:expr,)+ }
    ) => {
        $(#[$catalogue_doc])*
        $catalogue_visibility const $catalogue: &[$crate::metric::MetricSpec] = &[$($spec,)+];

        $(#[$doc])*
        $visibility struct $name {
            $($visibility $field: $type,)+
        }

        impl $name {
            $visibility fn register(registry: &::prometheus::Registry) -> Result<Self, ::prometheus::Error> {
                Ok(Self { $($field: ($spec).register(registry)?,)+ })
            }
        }
    };
}

#[cfg(test)]
mod tests;

//! The exporter of spans: OTLP over HTTP, from a thread of its own. The work never waits for it: a span that finds the
//! queue full is dropped, and a batch that the collector does not take is lost.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span};
use tracing_opentelemetry::{OpenTelemetrySpanExt as _, SetParentError};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::{Layer as _, Registry};
use usher_proto::TraceParent;

use super::failures::ExportFailures;
use super::{Consumer, endpoint};

/// Largest number of ended spans that wait for the exporter.
const MAX_WAITING: usize = 2048;
/// Largest number of spans in a request.
const MAX_BATCH: usize = 512;
/// Longest wait of an ended span for others that go with it.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// Time for the collector to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time for the last spans at the end of the process. The work may have used up nearly all the time that a container
/// runtime allows ([`crate::shutdown::DEADLINE`]).
const FLUSH_DEADLINE: Duration = Duration::from_millis(500);

/// The running exporter.
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Exports the spans that have ended, and ends the exporter.
    pub(super) fn flush(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_DEADLINE) {
            tracing::warn!(%error, "exporting the last spans failed; they are lost");
        }
    }
}

/// Starts the exporter to the collector at `address`, under the name `service`. Returns it with the layer that feeds it
/// with spans, and the events in them, of our own crates from the level info up, whatever `RUST_LOG` is.
///
/// # Errors
///
/// The address is invalid, or a thread cannot be started. A collector that does not answer is no error.
pub(super) fn start(address: &str, service: &'static str) -> Result<(Consumer<Registry>, Exporter), String> {
    let url = endpoint::spans_url(address)?;
    super::install_tls();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_timeout(DEADLINE)
        .build()
        .map_err(|error| error.to_string())?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_WAITING)
        .with_max_export_batch_size(MAX_BATCH)
        .with_scheduled_delay(MAX_DELAY)
        .build();
    let exporter = LoggedExporter { exporter, failures: Mutex::default() };
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(service).build())
        .with_span_processor(processor)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("usher"))
        .with_location(false)
        .with_threads(false)
        .with_context_activation(false)
        .with_filter(dynamic_filter_fn(|metadata, _| is_exported(metadata)).with_max_level_hint(LevelFilter::INFO));
    Ok((layer.boxed(), Exporter(provider)))
}

/// True for spans and events of our own crates, whose names all begin alike, from the level info up.
///
/// This is the function of a dynamic filter because such a filter is asked each time. The registry keeps the answers of
/// the filters of single layers in the thread, for the span or event that follows. Code that asks whether a level is
/// enabled and then logs nothing (`log_enabled!` in sqlx and rdkafka) leaves answers behind. They would be taken for those about the next span
/// of the thread if no filter had to be asked about it, and the span would be lost.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("usher") && *metadata.level() <= LevelFilter::INFO
}

/// Logs failures of the exporter, which the SDK discards.
#[derive(Debug)]
struct LoggedExporter<E> {
    exporter: E,
    failures: Mutex<ExportFailures>,
}

impl<E: SpanExporter> SpanExporter for LoggedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        if let Err(error) = &result {
            let lost = self.failures.lock().unwrap_or_else(PoisonError::into_inner).note(spans, Instant::now());
            if let Some(lost) = lost {
                tracing::warn!(lost, %error, "exporting spans failed; they are lost");
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Makes a span the child of the span that `parent` names.
pub(crate) fn continue_from(span: &Span, parent: TraceParent) {
    let trace_id = TraceId::from(parent.trace_id());
    let flags = TraceFlags::new(parent.flags());
    let parent = SpanContext::new(trace_id, SpanId::from(parent.span_id()), flags, true, TraceState::NONE);
    let set = span.set_parent(Context::new().with_remote_span_context(parent));
    // The other errors mean that the span is not exported: there is no exporter, or nobody wants the span.
    debug_assert!(!matches!(set, Err(SetParentError::AlreadyStarted)), "the span has already been entered");
}

/// Returns the position of a span in its trace. `None` if it is not exported.
pub(crate) fn position(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let span = context.span();
    let position = span.span_context();
    let trace_id = u128::from_be_bytes(position.trace_id().to_bytes());
    let span_id = u64::from_be_bytes(position.span_id().to_bytes());
    TraceParent::new(trace_id, span_id, position.trace_flags().to_u8())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Runs `work` with a log that shows warnings and an exporter whose collector is not there.
    fn exporting(work: impl FnOnce()) {
        let (spans, exporter) = start("http://127.0.0.1:1", "test").expect("a good address");
        let log: Consumer<Registry> =
            tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(EnvFilter::new("warn")).boxed();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(vec![log, spans]), work);
        exporter.flush();
    }

    #[test]
    fn a_span_continues_the_trace_of_its_parent_and_is_exported_whatever_was_asked_for_before() {
        let parent = TraceParent::new(7, 9, 1).expect("ids other than zero");
        exporting(|| {
            for _ in 0..3 {
                // `log_enabled!` of the crate log asks like this.
                let asked = tracing::info_span!(target: "sqlx::query", "asked");
                let metadata = asked.metadata().expect("a disabled span has it, too");
                tracing::dispatcher::get_default(|dispatch| dispatch.enabled(metadata));
                let span = tracing::error_span!("run");
                continue_from(&span, parent);
                let position = position(&span).expect("it is exported");
                assert_eq!((position.trace_id(), position.flags()), (7, 1));
                assert_ne!(position.span_id(), 9);
            }
            let of_others = tracing::error_span!(target: "sqlx::query", "query");
            assert_eq!(position(&of_others), None);
        });
        assert_eq!(position(&tracing::error_span!("run")), None, "nothing exports");
    }
}

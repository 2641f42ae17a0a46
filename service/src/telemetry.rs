//! Structured logging to standard error, and the export of spans. Callers must not put personal data into log lines or
//! spans; nothing filters it here.

mod format;

#[cfg(any(feature = "otlp", test))]
mod endpoint;
#[cfg(any(feature = "otlp", test))]
mod failures;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
#[cfg(not(feature = "otlp"))]
pub(crate) mod without_otlp;

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

#[cfg(feature = "otlp")]
pub(crate) use self::otlp as export;
#[cfg(not(feature = "otlp"))]
pub(crate) use self::without_otlp as export;
use crate::ConfigError;
use crate::options::Environment;
use crate::{best_effort, log_filter};

/// One consumer of events and spans.
type Consumer<S> = Box<dyn Layer<S> + Send + Sync>;

/// Target of log lines that are news on a server and clutter before a person's eyes. They are not written in the format
/// `short` unless `RUST_LOG` asks for them.
pub const DETAIL: &str = "usher::detail";

/// Starts logging. `RUST_LOG` sets the filter (default `info`), `USHER_LOG_FORMAT` the format: `short` (default on a
/// terminal), `text` (default elsewhere) or `json`.
///
/// # Errors
///
/// One of the two settings is invalid, or logging was already started.
pub fn start(environment: &Environment) -> Result<(), ConfigError> {
    // The filter of the whole process, not of one layer: such a filter alone loses lines, as `otlp` describes.
    install(tracing_subscriber::registry().with(filter(environment)?).with(log(environment)?))
}

/// Does the same for a service, and exports its spans under the name `service` if `USHER_OTLP_ENDPOINT` names a
/// collector. Keep the result until the process ends.
///
/// # Errors
///
/// One of the settings is invalid, the collector's address is set in a program that was built without the feature
/// `otlp`, or logging was already started.
pub fn start_service(environment: &Environment, service: &'static str) -> Result<SpanExport, ConfigError> {
    let setting = "USHER_OTLP_ENDPOINT";
    let Some(address) = environment.get(setting)? else {
        start(environment)?;
        return Ok(SpanExport(None));
    };
    let log: Consumer<Registry> = log(environment)?.with_filter(filter(environment)?).boxed();
    let (spans, exporter) = export::start(&address, service).map_err(|why| ConfigError::new(setting, why))?;
    install(tracing_subscriber::registry().with(vec![log, spans]))?;
    Ok(SpanExport(Some(exporter)))
}

/// The export of spans, which is off without a collector. When it is dropped, the spans that have ended are exported;
/// that takes at most half a second.
#[must_use = "when it is dropped, no more spans are exported"]
pub struct SpanExport(Option<export::Exporter>);

impl Drop for SpanExport {
    fn drop(&mut self) {
        if let Some(exporter) = &self.0 {
            exporter.flush();
        }
    }
}

fn install(subscriber: impl SubscriberInitExt) -> Result<(), ConfigError> {
    subscriber.try_init().map_err(|error| ConfigError::new("logging", error))
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Short,
    Text,
    Json,
}

impl LogFormat {
    fn of(environment: &Environment) -> Result<Self, ConfigError> {
        match environment.get("USHER_LOG_FORMAT")?.as_deref() {
            None if std::io::stderr().is_terminal() => Ok(Self::Short),
            Some("short") => Ok(Self::Short),
            None | Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(ConfigError::new(
                "USHER_LOG_FORMAT",
                format!("{other:?} is not known: it may be short, text or json"),
            )),
        }
    }
}

/// Returns the filter of the log.
fn filter(environment: &Environment) -> Result<EnvFilter, ConfigError> {
    let Some(text) = environment.get("RUST_LOG")? else {
        let mut filter = EnvFilter::default().add_directive(Directive::from(tracing::Level::INFO));
        if LogFormat::of(environment)? == LogFormat::Short {
            let quiet = format!("{DETAIL}=warn").parse();
            filter = filter.add_directive(quiet.map_err(|error| ConfigError::new("logging", error))?);
        }
        return Ok(filter);
    };
    let example = "for instance info, or warn,usher_ingest=debug";
    log_filter::check(&text).map_err(|why| ConfigError::new("RUST_LOG", why))?;
    EnvFilter::try_new(&text).map_err(|error| ConfigError::new("RUST_LOG", format!("{error}; {example}")))
}

/// Returns the layer that writes the log.
fn log<S>(environment: &Environment) -> Result<Consumer<S>, ConfigError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Colours are used on a terminal only; files and collectors get plain text.
    let ansi = std::io::stderr().is_terminal();
    Ok(match LogFormat::of(environment)? {
        LogFormat::Short => format::short(best_effort::stderr, ansi).boxed(),
        LogFormat::Text => format::text(best_effort::stderr, ansi).boxed(),
        LogFormat::Json => format::json(best_effort::stderr).boxed(),
    })
}

/// Installs the cryptography provider for all TLS connections of the process. Call it once, before
/// the first connection.
pub fn install_tls() {
    // An error means that a provider is already installed, which is sufficient.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_used_is_refused_by_its_name() {
        let start = |address: &str| {
            let environment = Environment::from_vars([("USHER_OTLP_ENDPOINT", address)]);
            start_service(&environment, "usher").err().map(|error| error.to_string()).unwrap_or_default()
        };
        let said = start("localhost:4318");
        let expected = if cfg!(feature = "otlp") { "the address of a collector" } else { "the Cargo feature otlp" };
        assert!(said.starts_with("USHER_OTLP_ENDPOINT: ") && said.contains(expected), "{said}");
    }
}

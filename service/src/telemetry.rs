//! Structured logging to standard error. Callers must not log personal data; nothing filters it here.

mod format;

use std::io::IsTerminal as _;

use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::ConfigError;
use crate::options::Environment;
use crate::{best_effort, log_filter};

/// One consumer of events and spans, with a filter of its own.
type Consumer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging. `RUST_LOG` sets the filter (default `info`), `USHER_LOG_FORMAT` the format: `text`
/// (default) or `json`.
///
/// # Errors
///
/// One of the two settings is invalid, or logging was already started.
pub fn start(environment: &Environment) -> Result<(), ConfigError> {
    install(vec![log(environment)?])
}

fn install(consumers: Vec<Consumer>) -> Result<(), ConfigError> {
    tracing_subscriber::registry().with(consumers).try_init().map_err(|error| ConfigError::new("logging", error))
}

/// Returns the layer that writes the log.
fn log(environment: &Environment) -> Result<Consumer, ConfigError> {
    let filter = match environment.get("RUST_LOG")? {
        None => EnvFilter::default().add_directive(Directive::from(tracing::Level::INFO)),
        Some(text) => {
            let example = "for instance info, or warn,usher_ingest=debug";
            log_filter::check(&text).map_err(|why| ConfigError::new("RUST_LOG", why))?;
            EnvFilter::try_new(&text).map_err(|error| ConfigError::new("RUST_LOG", format!("{error}; {example}")))?
        }
    };
    match environment.get("USHER_LOG_FORMAT")?.as_deref() {
        // Colours are used on a terminal only; files and collectors get plain text.
        None | Some("text") => {
            Ok(format::text(best_effort::stderr, std::io::stderr().is_terminal()).with_filter(filter).boxed())
        }
        Some("json") => Ok(format::json(best_effort::stderr).with_filter(filter).boxed()),
        Some(other) => {
            Err(ConfigError::new("USHER_LOG_FORMAT", format!("{other:?} is not known: it may be text or json")))
        }
    }
}

/// Installs the cryptography provider for all TLS connections of the process. Call it once, before
/// the first connection.
pub fn install_tls() {
    // An error means that a provider is already installed, which is sufficient.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

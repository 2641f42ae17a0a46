//! Structured logging to standard error. Callers must not log personal data; nothing filters it here.

use std::fmt::Debug;
use std::io::IsTerminal as _;

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use usher_proto::visible;

use crate::ConfigError;
use crate::options::Environment;
use crate::{log_filter, unfailing};

/// Starts logging. `RUST_LOG` sets the filter (default `info`), `USHER_LOG_FORMAT` the format: `text`
/// (default) or `json`.
///
/// # Errors
///
/// One of the two settings is invalid, or logging was already started.
pub fn start(environment: &Environment) -> Result<(), ConfigError> {
    let filter = match environment.get("RUST_LOG")? {
        None => EnvFilter::default().add_directive(Directive::from(tracing::Level::INFO)),
        Some(text) => {
            let example = "for instance info, or warn,usher_ingest=debug";
            log_filter::check(&text).map_err(|why| ConfigError::new("RUST_LOG", why))?;
            EnvFilter::try_new(&text).map_err(|error| ConfigError::new("RUST_LOG", format!("{error}; {example}")))?
        }
    };
    let subscriber =
        tracing_subscriber::fmt().log_internal_errors(false).with_env_filter(filter).with_writer(unfailing::stderr);
    // Colours are used on a terminal only; files and collectors get plain text.
    let subscriber = subscriber.with_ansi(std::io::stderr().is_terminal());
    let started = match environment.get("USHER_LOG_FORMAT")?.as_deref() {
        None | Some("text") => subscriber.fmt_fields(fields()).try_init(),
        Some("json") => subscriber.json().flatten_event(true).try_init(),
        Some(other) => {
            return Err(ConfigError::new(
                "USHER_LOG_FORMAT",
                format!("{other:?} is not known: it may be text or json"),
            ));
        }
    };
    started.map_err(|error| ConfigError::new("logging", error))
}

/// Formats fields as text that stays on one line, regardless of their values: ids and types of events
/// come from outside.
fn fields() -> impl for<'w> FormatFields<'w> + 'static {
    let write = |writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let text = format!("{value:?}");
        let text = visible::line(&text);
        if field.name() == "message" { write!(writer, "{text}") } else { write!(writer, "{field}={text}") }
    };
    debug_fn(write).delimited(" ")
}

/// Installs the cryptography provider for all TLS connections of the process. Call it once, before
/// the first connection.
pub fn install_tls() {
    // An error means that a provider is already installed, which is sufficient.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_its_fields_hold() {
        let odd = "\u{1b}[2J\n2026  forged\u{9b}\u{202e}";
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).fmt_fields(fields());
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(text = odd, shown = %odd, debug = ?odd, number = 7, "{odd}");
        });
        let text = String::from_utf8(written.0.lock().expect("nobody panicked").clone()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && !text.trim_end().contains(visible::is_control), "{text:?}");
        assert!(text.contains("number=7") && text.contains("shown=\\u{1b}[2J\\u{a}2026"), "{text}");
    }
}

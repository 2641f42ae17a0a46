//! The formats of a log line. Fields of events and of spans may hold text from outside, such as ids and types of events:
//! whatever they hold, an event stays on one line, and no control character reaches a terminal.

use std::fmt::{self, Debug};

use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Format, Json, Writer, debug_fn};
use tracing_subscriber::fmt::{self as log, FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use usher_proto::visible;

/// Returns the layer that writes events as text. `ansi` is true for colours.
pub(super) fn text<S, W>(writer: W, ansi: bool) -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    log::layer().log_internal_errors(false).with_writer(writer).with_ansi(ansi).fmt_fields(fields())
}

/// Returns the layer that writes each event as one JSON object.
pub(super) fn json<S, W>(writer: W) -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = log::layer().log_internal_errors(false).with_writer(writer).with_ansi(false);
    layer.json().flatten_event(true).map_event_format(VisibleJson)
}

/// Formats fields of events and spans as text without control characters.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let write = |writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let text = format!("{value:?}");
        let text = visible::line(&text);
        if field.name() == "message" { write!(writer, "{text}") } else { write!(writer, "{field}={text}") }
    };
    debug_fn(write).delimited(" ")
}

/// Escapes the control characters that the JSON format leaves as they are: those above U+001F.
struct VisibleJson(Format<Json>);

impl<S, N> FormatEvent<S, N> for VisibleJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
    Format<Json>: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&visible::json(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

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

    impl Written {
        /// Returns what `log` writes through the layer that `layer` makes of this writer.
        fn by<L: Layer<Registry> + Send + Sync>(layer: impl FnOnce(Self) -> L, log: impl FnOnce()) -> String {
            let written = Self::default();
            let subscriber = tracing_subscriber::registry().with(layer(written.clone()));
            tracing::subscriber::with_default(subscriber, log);
            let bytes = written.0.lock().expect("nobody panicked").clone();
            String::from_utf8(bytes).expect("text")
        }
    }

    const ODD: &str = "\u{1b}[2J\n2026  forged\u{9b}\u{202e}";

    /// Logs an event in a span, with a text from outside in every place that can hold one.
    fn log_odd() {
        let span = tracing::error_span!("outer", id = %ODD, later = tracing::field::Empty);
        span.record("later", ODD);
        span.in_scope(|| {
            tracing::info!(text = ODD, shown = %ODD, debug = ?ODD, number = 7, "{ODD}");
        });
    }

    fn assert_one_clean_line(text: &str) {
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && !text.trim_end().contains(visible::is_control), "{text:?}");
    }

    #[test]
    fn an_event_is_one_line_whatever_its_fields_and_those_of_its_spans_hold() {
        let text = Written::by(|written| text(move || written.clone(), false), log_odd);
        assert_one_clean_line(&text);
        assert!(text.contains("number=7") && text.contains("shown=\\u{1b}[2J\\u{a}2026"), "{text}");
        assert!(text.contains("outer{id=\\u{1b}[2J\\u{a}2026") && text.contains(" later=\""), "{text}");
    }

    #[test]
    fn an_event_as_json_is_one_line_that_reads_back_whatever_its_fields_and_those_of_its_spans_hold() {
        let text = Written::by(|written| json(move || written.clone()), log_odd);
        assert_one_clean_line(&text);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["shown"], ODD);
        assert_eq!(value["span"]["name"], "outer");
        assert_eq!((&value["span"]["id"], &value["span"]["later"]), (&ODD.into(), &ODD.into()));
    }
}

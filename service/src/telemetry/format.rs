//! The formats of a log line. Fields of events and of spans may hold text from outside, such as ids and types of events:
//! whatever they hold, an event stays on one line, and no control character reaches a terminal.

use std::fmt::{self, Debug};

use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Format, Json, Writer, debug_fn};
use tracing_subscriber::fmt::{self as log, FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::{LookupSpan, Scope};
use usher_proto::visible;

use crate::clock;

/// Returns the layer that writes events as text. `ansi` is true for colours.
pub(super) fn text<S, W>(writer: W, ansi: bool) -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    log::layer().log_internal_errors(false).with_writer(writer).with_ansi(ansi).fmt_fields(fields())
}

/// Returns the layer that writes events for a person at a terminal. `ansi` is true for colours.
pub(super) fn short<S, W>(writer: W, ansi: bool) -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = log::layer().log_internal_errors(false).with_writer(writer).with_ansi(ansi).fmt_fields(fields());
    layer.event_format(Short)
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

/// Writes the time of day (UTC), the level unless it is the usual one, the message, and the fields of the event and of its
/// spans: what fits a terminal. The date and the names of modules are left out.
struct Short;

impl<S, N> FormatEvent<S, N> for Short
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (before, after) = if writer.has_ansi_escapes() { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
        let second = clock::wall().seconds().rem_euclid(24 * 3600);
        write!(writer, "{before}{:02}:{:02}:{:02}{after} ", second / 3600, second / 60 % 60, second % 60)?;
        let colour = if writer.has_ansi_escapes() { colour(*event.metadata().level()) } else { "" };
        match *event.metadata().level() {
            Level::INFO => {}
            level => write!(writer, "{colour}{level:>5}{after} ")?,
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                write!(writer, " {before}{fields}{after}")?;
            }
        }
        writeln!(writer)
    }
}

/// Returns the escape that begins the colour of a level.
fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO | Level::DEBUG | Level::TRACE => "\u{1b}[2m",
    }
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
    fn an_event_for_a_terminal_is_one_short_line_whatever_its_fields_and_those_of_its_spans_hold() {
        let text = Written::by(|written| short(move || written.clone(), false), log_odd);
        assert_one_clean_line(&text);
        assert!(text.contains("number=7") && text.contains("shown=\\u{1b}[2J\\u{a}2026"), "{text}");
        assert!(text.contains(" id=\\u{1b}[2J\\u{a}2026") && text.contains(" later=\""), "{text}");
        let text = Written::by(
            |written| short(move || written.clone(), false),
            || tracing::warn!(flow = "email", "a run is given up"),
        );
        let (time, rest) = text.split_at(8);
        assert!(time.bytes().all(|byte| byte.is_ascii_digit() || byte == b':'), "{text}");
        assert_eq!(rest, "  WARN a run is given up flow=\"email\"\n");
        let text = Written::by(|written| short(move || written.clone(), false), || tracing::info!("stopping"));
        assert_eq!(&text[8..], " stopping\n");
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

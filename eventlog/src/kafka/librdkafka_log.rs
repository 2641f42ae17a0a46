//! librdkafka's log messages, for all clients of a log together. An unreachable broker is reported once every ten
//! seconds, however many clients and threads notice it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::LogError;

/// Interval after which a repeated message is logged again.
const EVERY: Duration = Duration::from_secs(10);
/// librdkafka's names of errors for which it has no connection.
const NO_CONNECTION: [&str; 4] = ["BrokerTransportFailure", "AllBrokersDown", "OperationTimedOut", "Resolve"];
/// Maximum number of messages remembered as logged.
const MOST: usize = 256;

/// Logs librdkafka's messages, and each of them at most once within ten seconds.
#[derive(Default)]
pub(super) struct LibrdkafkaLogger {
    told: Mutex<HashMap<String, Instant>>,
    /// The newest report of a broker that cannot be reached. `None` once a request to the cluster succeeded since.
    unreachable: Mutex<Option<String>>,
}

impl LibrdkafkaLogger {
    /// Logs a line of librdkafka's log.
    pub(super) fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if let Some(away) = UnreachableBroker::read(text) {
            return self.away(&away);
        }
        // A message about all brokers repeats what was reported for each of them.
        if text.contains("brokers are down") || text.contains("broker connections are down") {
            return;
        }
        if !self.is_new(text) {
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", facility, "{text}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{text}"),
        }
    }

    /// Logs an error of a whole client or of its reads. `reason` is librdkafka's text for it, or what the
    /// client was doing.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        if let Some(away) = UnreachableBroker::read(reason) {
            return self.away(&away);
        }
        let passing = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::OperationTimedOut
                    // The end of a partition is no failure; rdkafka reports it here as well as to the reader.
                    | RDKafkaErrorCode::PartitionEOF
            )
        );
        if !passing && self.is_new(&format!("{error} {reason}")) {
            tracing::warn!(%error, reason, "Kafka client failed");
        }
    }

    /// Takes the result of a request to the cluster. Replaces librdkafka's name for a missing connection by the address
    /// and the reason, which librdkafka tells in its log only.
    pub(super) fn explained<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        let mut unreachable = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(done) => {
                *unreachable = None;
                Ok(done)
            }
            Err(LogError::Unavailable(text)) if NO_CONNECTION.iter().any(|name| text.contains(name)) => {
                Err(LogError::Unavailable(unreachable.clone().unwrap_or(text)))
            }
            Err(error) => Err(error),
        }
    }

    fn away(&self, away: &UnreachableBroker<'_>) {
        let line = format!("no connection to {}: {}", away.broker, away.why);
        *self.unreachable.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        if self.is_new(away.broker) {
            tracing::warn!("no connection to {}: {}; trying again", away.broker, away.why);
        }
    }

    fn is_new(&self, text: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(text).is_some_and(|at| at.elapsed() < EVERY) {
            return false;
        }
        if told.len() >= MOST {
            told.retain(|_, at| at.elapsed() < EVERY);
        }
        if told.len() < MOST {
            told.insert(text.to_owned(), Instant::now());
        }
        true
    }
}

/// A broker that cannot be reached, and the reason.
#[derive(Debug, PartialEq, Eq)]
struct UnreachableBroker<'a> {
    broker: &'a str,
    why: String,
}

impl<'a> UnreachableBroker<'a> {
    /// Parses librdkafka's `HOST:PORT/ID: WORDS: REASON (after 3ms in state CONNECT)`, anywhere in the text.
    fn read(text: &'a str) -> Option<Self> {
        let (words, _) = text.split_once(" (after ")?;
        let mut rest = words;
        loop {
            let (first, after) = rest.split_once(": ")?;
            // The name of a thread looks like that of a broker, in brackets.
            let broker = first.rsplit_once(' ').map_or(first, |(_, last)| last);
            if let Some((broker, id)) = broker.split_once('/')
                && !first.contains('[')
                && (id == "bootstrap" || id.parse::<i32>().is_ok())
            {
                let why = after.split_once(" failed: ").map_or(after, |(_, why)| why);
                let mut letters = why.chars();
                let first = letters.next()?.to_lowercase();
                return Some(Self { broker, why: first.chain(letters).collect() });
            }
            rest = after;
        }
    }
}

/// Context of clients that only send queries.
pub(super) struct QueryContext(pub(super) Arc<LibrdkafkaLogger>);

impl ClientContext for QueryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for QueryContext {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_away_is_told_by_address_and_reason() {
        for text in [
            "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused \
             (after 0ms in state CONNECT, 1 identical error(s) suppressed)",
            "[thrd:app]: usher#producer-1: 127.0.0.1:1/7: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms \
             in state CONNECT)",
            "127.0.0.1:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 9ms in state CONNECT)",
        ] {
            let expected = UnreachableBroker { broker: "127.0.0.1:1", why: "connection refused".into() };
            assert_eq!(UnreachableBroker::read(text), Some(expected), "{text}");
        }
        let resolving = "kafka:9092/bootstrap: Failed to resolve 'kafka:9092': Name or service not known (after 4ms in \
                         state CONNECT)";
        let away = UnreachableBroker::read(resolving).expect("understood");
        assert_eq!(away.why, "failed to resolve 'kafka:9092': Name or service not known");
        assert_eq!(UnreachableBroker::read("[thrd:main]: Group \"g\" received unknown topic"), None);
    }

    #[test]
    fn a_missing_connection_is_told_with_address_and_reason_until_a_request_succeeds() {
        let logger = LibrdkafkaLogger::default();
        let failed = || Err::<(), _>(LogError::Unavailable("Meta data fetch error: BrokerTransportFailure".into()));
        assert_eq!(logger.explained(failed()), failed(), "nothing is known of the reason");
        let text =
            "kafka:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)";
        logger.line(RDKafkaLogLevel::Error, "FAIL", text);
        let told = LogError::Unavailable("no connection to kafka:9092: connection refused".into());
        assert_eq!(logger.explained(failed()), Err(told));
        let other = || Err::<(), _>(LogError::Unavailable("the topic is gone".into()));
        assert_eq!(logger.explained(other()), other());
        assert_eq!(logger.explained(Ok(())), Ok(()));
        assert_eq!(logger.explained(failed()), failed());
    }

    #[test]
    fn the_same_is_told_once_within_ten_seconds() {
        let logger = LibrdkafkaLogger::default();
        assert!(logger.is_new("a"));
        assert!(!logger.is_new("a"));
        assert!(logger.is_new("b"));
    }
}

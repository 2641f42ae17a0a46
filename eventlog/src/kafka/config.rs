//! Configuration of librdkafka, with the reason for each setting.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use usher_service::ConfigError;

use super::APPEND_DEADLINE;
use super::librdkafka_log::LibrdkafkaLogger;
use crate::{LogError, MAX_RECORD};

/// Properties on which Usher's guarantees depend. A change of one would lose or repeat events.
const FIXED: [&str; 15] = [
    "bootstrap.servers",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "partitioner",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.max.bytes",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "allow.auto.create.topics",
    "enable.partition.eof",
    "partition.assignment.strategy",
];

/// librdkafka's default batch size, in bytes.
const USUAL_BATCH: usize = 1_000_000;

/// Returns true if a property needs TLS. librdkafka also takes SCRAM and tokens from OpenSSL.
fn needs_tls(name: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match name {
        "security.protocol" => value.contains("ssl"),
        "sasl.mechanism" | "sasl.mechanisms" => value.contains("scram") || value.contains("oauthbearer"),
        _ => name.starts_with("ssl.") || name.starts_with("sasl.oauthbearer."),
    }
}

/// Returns the error for a property that needs TLS. Includes the value only if it is one of librdkafka's keywords:
/// other values may be secrets.
fn without_tls(name: &str, value: &str) -> LogError {
    let given = match name {
        "security.protocol" | "sasl.mechanism" | "sasl.mechanisms" => format!("{name}={value}"),
        _ => name.to_owned(),
    };
    let why = format!(
        "{given} needs TLS, and this build has none: use the image of deploy/Dockerfile, or build with \
         `cargo build --release --features kafka-tls`, which needs the system's OpenSSL"
    );
    LogError::Setting(ConfigError::new(&format!("USHER_KAFKA_{}", name.replace('.', "_").to_uppercase()), why))
}

/// The configuration of every client of one cluster.
#[derive(Clone)]
pub(super) struct Settings {
    brokers: String,
    properties: Vec<(String, String)>,
    logger: Arc<LibrdkafkaLogger>,
}

impl Settings {
    pub(super) fn new(brokers: &str, properties: &[(String, String)]) -> Result<Self, LogError> {
        if let Some((name, _)) = properties.iter().find(|(name, _)| FIXED.contains(&name.as_str())) {
            let variable = name.replace('.', "_").to_uppercase();
            let why = format!("{name} is not yours to set, Usher's promises hang on it");
            return Err(LogError::Setting(ConfigError::new(&format!("USHER_KAFKA_{variable}"), why)));
        }
        if !cfg!(feature = "kafka-tls")
            && let Some((name, value)) = properties.iter().find(|(name, value)| needs_tls(name, value))
        {
            return Err(without_tls(name, value));
        }
        Ok(Self { brokers: brokers.to_owned(), properties: properties.to_vec(), logger: Arc::default() })
    }

    /// Returns the logger of librdkafka's messages.
    pub(super) fn logger(&self) -> Arc<LibrdkafkaLogger> {
        self.logger.clone()
    }

    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "usher")
            // A restarted broker is reconnected within this time, not within the default of ten seconds.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.nagle.disable", "true")
            .set("enable.metrics.push", "false")
            .set("message.max.bytes", MAX_RECORD.to_string())
            // A query must not recreate a deleted topic as an empty one.
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    fn with_properties(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// Returns the configuration of clients that send queries and create topics.
    pub(super) fn admin(&self) -> ClientConfig {
        self.with_properties(self.common())
    }

    /// Returns the configuration of the producer. It is idempotent and acknowledged by all in-sync replicas, so that
    /// events answered with 2xx are stored once and in order. If the topics take less than a usual batch, batches are
    /// no larger than that: a batch that is too large is refused as a whole.
    pub(super) fn producer(&self, largest_batch: Option<usize>) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", APPEND_DEADLINE.as_millis().to_string())
            // A longer wait for more records gains little: under load, requests in flight fill batches by themselves.
            .set("linger.ms", "0.5")
            // Bounds memory. Ingest's own limit on requests in flight is below this number of messages.
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("compression.codec", "lz4");
        let mut config = self.with_properties(config);
        if let Some(bytes) = largest_batch.filter(|bytes| *bytes < USUAL_BATCH) {
            config.set("batch.size", bytes.max(1).to_string());
        }
        config
    }

    /// Returns the configuration of a consumer. Only this code commits offsets. A committed offset that no longer
    /// exists is an error, never a silent jump.
    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.common();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // The only signal that offsets without a record, at the end of a partition, have been read.
            .set("enable.partition.eof", "true")
            // Bounds what is fetched ahead. A full local queue is checked again after 20 ms, not after a second.
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "20")
            // New partitions of a topic are found within ten seconds, not after five minutes.
            .set("topic.metadata.refresh.interval.ms", "10000");
        let protocol =
            self.properties.iter().find(|(name, _)| name == "group.protocol").map(|(_, value)| value.as_str());
        if protocol != Some("consumer") {
            // The new protocol leaves both settings to the broker, and librdkafka refuses them.
            config.set("partition.assignment.strategy", "cooperative-sticky").set("session.timeout.ms", "10000");
        }
        self.with_properties(config)
    }

    /// Returns the configuration for reading many records in order. Less is fetched ahead than for a subscription, whose own
    /// records are in memory as well.
    pub(super) fn scanner(&self, topic: &str) -> ClientConfig {
        let mut config = self.looker(topic);
        config.set("queued.max.messages.kbytes", "4096");
        config
    }

    /// Returns the configuration for reading one record. librdkafka requires the name of a group for any assignment,
    /// though this group is never joined. The topic's name serves, because access rules will know it.
    pub(super) fn looker(&self, topic: &str) -> ClientConfig {
        self.consumer(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_promises_hang_on_is_refused_by_its_variable() {
        let error = Settings::new("a:1", &[("enable.auto.commit".into(), "true".into())]).err().expect("refused");
        assert!(error.to_string().starts_with("USHER_KAFKA_ENABLE_AUTO_COMMIT: "), "{error}");
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn a_build_without_tls_says_so_and_which_one_has_it() {
        for (name, value) in [
            ("security.protocol", "SASL_SSL"),
            ("security.protocol", "ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.mechanisms", "OAUTHBEARER"),
            ("ssl.ca.location", "/hunter2"),
        ] {
            let error = Settings::new("a:1", &[(name.into(), value.into())]).err().expect(name);
            let said = error.to_string();
            assert!(error.is_lasting() && said.contains("--features kafka-tls"), "{said}");
            assert!(said.starts_with("USHER_KAFKA_S") && !said.contains("hunter2"), "{said}");
        }
        for (name, value) in [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN")] {
            assert!(Settings::new("a:1", &[(name.into(), value.into())]).is_ok(), "{name}={value} needs none");
        }
    }

    #[cfg(feature = "kafka-tls")]
    #[test]
    fn a_build_with_tls_accepts_settings_for_it() {
        let accepted = |properties: &[(&str, &str)]| {
            let properties: Vec<_> = properties.iter().map(|&(name, value)| (name.into(), value.into())).collect();
            let settings = Settings::new("127.0.0.1:1", &properties).expect("no property is refused");
            let client = settings.producer(None).create::<rdkafka::producer::BaseProducer>();
            client.unwrap_or_else(|error| panic!("{properties:?}: {error}"));
        };
        accepted(&[("security.protocol", "SSL"), ("ssl.endpoint.identification.algorithm", "https")]);
        accepted(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "usher"),
            ("sasl.password", "hunter2"),
        ]);
        accepted(&[("compression.codec", "zstd")]);
    }

    #[test]
    fn batches_are_no_larger_than_topics_take() {
        let settings = Settings::new("a:1", &[]).expect("fine");
        assert_eq!(settings.producer(None).get("batch.size"), None);
        assert_eq!(settings.producer(Some(2_000_000)).get("batch.size"), None);
        assert_eq!(settings.producer(Some(20_000)).get("batch.size"), Some("20000"));
    }

    #[test]
    fn the_new_group_protocol_is_not_told_what_the_broker_decides() {
        let classic = Settings::new("a:1", &[]).expect("fine").consumer("g");
        assert_eq!(classic.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        let new = Settings::new("a:1", &[("group.protocol".into(), "consumer".into())]).expect("fine").consumer("g");
        assert_eq!(new.get("partition.assignment.strategy"), None);
        assert_eq!(new.get("session.timeout.ms"), None);
    }
}

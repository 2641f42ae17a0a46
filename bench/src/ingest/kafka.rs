//! Settings of producers that are measured beside Usher's: the same ones.

use rdkafka::ClientConfig;

/// Returns the settings of Usher's producer, as far as they are not librdkafka's defaults, and its partitioner.
pub(crate) fn producer_settings(broker: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", broker)
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "8000")
        .set("linger.ms", "0.5")
        .set("queue.buffering.max.messages", "20000")
        .set("queue.buffering.max.kbytes", "131072")
        .set("compression.codec", "lz4")
        .set("socket.nagle.disable", "true")
        .set("enable.metrics.push", "false");
    settings
}

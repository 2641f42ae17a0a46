//! Conversion of a Kafka message into a record.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use usher_proto::{Key, Record};

/// Copies a message out of librdkafka's buffer, which would otherwise stay in memory as a whole as long as one of its
/// messages. A key or header of another producer that is not UTF-8 is converted with replacement characters; such an
/// event is not accepted later.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| {
                (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
            })
            .collect()
    });
    Record {
        key: Key::new(String::from_utf8_lossy(message.key().unwrap_or_default())),
        headers,
        body: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    }
}

//! What a message says, as a record.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use usher_proto::{Key, Record};

/// Copies a message out of librdkafka's buffer, which would otherwise stay whole for as long as one message of it.
/// Another producer's key or header that is no UTF-8 is read as best it can be; the event in it will not be accepted.
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

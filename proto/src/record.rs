//! A log record: a key, headers and a body. [`crate::Event`] gives these a meaning.

use bytes::Bytes;

use crate::Key;

/// A record as it is appended to the log and read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key, which determines the partition. Records with the same key stay in order.
    pub key: Key,
    /// Names and UTF-8 values, in the order in which they were written.
    pub headers: Vec<(String, String)>,
    /// The bytes as received.
    pub body: Bytes,
}

impl Record {
    /// Returns the value of the first header of this name. `None` if there is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns an upper estimate of the record's size in the log, in bytes.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        self.key.as_str().len() + headers + self.body.len() + 64
    }
}

//! What is in the log: a key, headers, a body. Knows no meaning; [`crate::Event`] gives it one.

use bytes::Bytes;

use crate::Key;

/// One record as it is appended to the log and read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is kept in order, and decides the partition.
    pub key: Key,
    /// Names and UTF-8 values, in the order they were written.
    pub headers: Vec<(String, String)>,
    /// The bytes as received.
    pub body: Bytes,
}

impl Record {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// An upper estimate of the bytes the record takes in the log.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        self.key.as_str().len() + headers + self.body.len() + 64
    }
}

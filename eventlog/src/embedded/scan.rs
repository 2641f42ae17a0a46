//! Reads pages of partitions from the file.

use async_trait::async_trait;
use rusqlite::Connection;

use super::file::File;
use super::query::{self, PageLimits};
use crate::LogError;
use crate::scan::{PAGE, PAGE_BYTES, ScanPage, ScanRange, Scanner};

/// The reader described in the module documentation.
pub(super) struct FileScanner {
    pub(super) file: File,
    pub(super) topic: String,
}

#[async_trait]
impl Scanner for FileScanner {
    async fn page(&mut self, ranges: &[ScanRange]) -> Result<ScanPage, LogError> {
        let watermarks = query::watermarks(&self.file, &self.topic).await?;
        if let Some(missing) = ranges.iter().find(|range| !watermarks.contains_key(&range.partition)) {
            return Err(query::no_partition(&self.topic, missing.partition));
        }
        let Some(ScanRange { partition, from, end }) = ranges.first().copied() else {
            return Err(LogError::Unavailable("no range to read".to_owned()));
        };
        let topic = self.topic.clone();
        let limits = PageLimits { records: PAGE, bytes: PAGE_BYTES };
        let read = move |connection: &mut Connection| query::read_records(connection, &topic, partition, from, limits);
        let mut records = self.file.call(read).await?;
        let bytes: usize = records.iter().map(|(_, record)| record.size()).sum();
        let is_full = records.len() >= PAGE || bytes >= PAGE_BYTES;
        let last = records.last().map(|(last, _)| last.next()).filter(|_| is_full);
        records.retain(|(offset, _)| *offset < end);
        Ok(ScanPage { partition, from, records, next: last.map_or(end, |last| last.min(end)) })
    }
}

//! Reads pages of partitions from the file.

use async_trait::async_trait;

use super::file::File;
use super::query;
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
        let pool = self.file.pool()?;
        let watermarks = query::watermarks(pool, &self.topic).await?;
        if let Some(missing) = ranges.iter().find(|range| !watermarks.contains_key(&range.partition)) {
            return Err(query::no_partition(&self.topic, missing.partition));
        }
        let Some(ScanRange { partition, from, end }) = ranges.first().copied() else {
            return Err(LogError::Unavailable("no range to read".to_owned()));
        };
        let mut records = query::records(pool, &self.topic, partition, from, PAGE, PAGE_BYTES).await?;
        let bytes: usize = records.iter().map(|(_, record)| record.size()).sum();
        let is_full = records.len() >= PAGE || bytes >= PAGE_BYTES;
        let last = records.last().map(|(last, _)| last.next()).filter(|_| is_full);
        records.retain(|(offset, _)| *offset < end);
        Ok(ScanPage { partition, from, records, next: last.map_or(end, |last| last.min(end)) })
    }
}

//! Reading outside any group: the records of partitions in order, a page at a time.

use async_trait::async_trait;
use usher_proto::{Offset, Partition, Record};

use crate::LogError;

/// Maximum number of records in a page.
pub(crate) const PAGE: usize = 1024;
/// Approximate maximum size of a page, in bytes of records.
pub(crate) const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Records to read: those of a partition that are not below `from`, and are below `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRange {
    /// The partition.
    pub partition: Partition,
    /// The offset at which the range begins.
    pub from: Offset,
    /// The offset at which the range ends; above `from`, and not above the end of the log.
    pub end: Offset,
}

/// The first records of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// The partition.
    pub partition: Partition,
    /// The offset at which the range begins.
    pub from: Offset,
    /// Offsets and records, in ascending order of offset. May be empty: offsets may hold no record.
    pub records: Vec<(Offset, Record)>,
    /// The offset at which the next page begins, above `from`. Between the records and this offset there is nothing.
    pub next: Offset,
}

/// A reader of one topic. It is fast if each range begins where the last page of its partition ended.
#[async_trait]
pub trait Scanner: Send {
    /// Returns a page of one of these ranges, of which there must be one at least. Records that the log has deleted are
    /// passed over.
    ///
    /// # Errors
    ///
    /// A partition does not exist, the log is unavailable, or it ends before a range does. The same can be asked for again.
    async fn page(&mut self, ranges: &[ScanRange]) -> Result<ScanPage, LogError>;
}

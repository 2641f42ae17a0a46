//! The check that a log holds each acknowledged request.

use anyhow::Context as _;
use usher_eventlog::{LogAddress, LogLayout, ScanRange};
use usher_proto::headers;

use super::requests;

/// Checks that the log holds the requests from 0 to `acknowledged`, none of them missing.
///
/// # Errors
///
/// One is missing, or the log cannot be read.
pub(super) async fn holds_all(address: &LogAddress, layout: &LogLayout, acknowledged: usize) -> anyhow::Result<()> {
    let log = usher_eventlog::open(address, &[]).await?;
    let topic = layout.events().name;
    let watermarks = log.watermarks(&topic).await?;
    let mut left: Vec<ScanRange> = watermarks
        .into_iter()
        .filter(|(_, it)| it.low < it.high)
        .map(|(partition, it)| ScanRange { partition, from: it.low, end: it.high })
        .collect();
    let mut found = vec![false; acknowledged];
    let mut scanner = log.scan(&topic)?;
    while !left.is_empty() {
        let page = scanner.page(&left).await?;
        for (_, record) in &page.records {
            let number = requests::number(record.header(headers::SVIX[0]).context("a record without an id")?)?;
            if let Some(found) = found.get_mut(number) {
                *found = true;
            }
        }
        for range in &mut left {
            if range.partition == page.partition {
                range.from = page.next;
            }
        }
        left.retain(|range| range.from < range.end);
    }
    let missing = found.iter().filter(|found| !**found).count();
    anyhow::ensure!(missing == 0, "{missing} of {acknowledged} acknowledged requests are not in the log");
    Ok(())
}

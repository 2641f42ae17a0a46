//! Reading outside any group: each record of a range, once, and nothing else.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::{ClientConfig, TopicPartitionList};
use usher_eventlog::ScanRange;

use super::*;

on_logs!(
    [embedded mock_broker kafka]
    a_scan_reads_partitions_page_by_page_and_nothing_beyond_their_ends,
    a_scan_that_is_kept_misses_nothing_that_was_appended_since,
);

on_logs!([kafka] a_scan_passes_over_what_the_log_has_deleted);
on_logs!([mock_broker kafka] a_scan_of_more_than_the_log_has_is_refused);

async fn a_scan_reads_partitions_page_by_page_and_nothing_beyond_their_ends(subject: Subject) {
    const RECORDS: usize = 1500;
    let mut ranges = Vec::new();
    let mut written = BTreeMap::new();
    // The keys are in different partitions.
    for key in ["one", "two"] {
        let appends = (0..RECORDS).map(|number| {
            let record = record(key, format!("{number}"));
            let appended = subject.log.append(&subject.spec, record.clone());
            async move { (appended.await.unwrap(), record) }
        });
        let mut records: Vec<(Position, Record)> = futures::future::join_all(appends).await;
        records.sort_by_key(|(position, _)| position.offset);
        let partition = records[0].0.partition;
        let records: Vec<(Offset, Record)> =
            records.into_iter().map(|(Position { offset, .. }, record)| (offset, record)).collect();
        // One of them to a record before the last, one to a place after it.
        let end = if ranges.is_empty() { records[RECORDS - 1].0 } else { records[RECORDS - 1].0.next() };
        ranges.push(ScanRange { partition, from: records[0].0, end });
        written.insert(partition, records);
    }
    assert_eq!(written.len(), 2, "two partitions");

    let mut scanner = subject.log.scan(&subject.topic).unwrap();
    // A second time from the middle, as after a failure.
    for skipped in [0, 500] {
        let from = |range: &ScanRange| ScanRange { from: written[&range.partition][skipped].0, ..*range };
        let mut left: Vec<ScanRange> = ranges.iter().map(from).collect();
        let mut found: BTreeMap<Partition, Vec<(Offset, Record)>> = BTreeMap::new();
        let mut pages = 0;
        while !left.is_empty() {
            let page = timeout(DEADLINE, scanner.page(&left)).await.expect("a page in time").unwrap();
            let range = left.iter_mut().find(|range| range.partition == page.partition).expect("what was asked for");
            assert_eq!(page.from, range.from);
            assert!(page.next > page.from && page.next <= range.end, "{range:?}, and then {}", page.next);
            assert!(page.records.iter().all(|(offset, _)| (page.from..page.next).contains(offset)));
            range.from = page.next;
            left.retain(|range| range.from < range.end);
            found.entry(page.partition).or_default().extend(page.records);
            pages += 1;
        }
        assert!(pages >= if skipped == 0 { 4 } else { 2 }, "{pages} pages");
        for range in &ranges {
            let wanted = written[&range.partition][skipped..].iter().filter(|(offset, _)| *offset < range.end);
            let found = &found[&range.partition];
            assert!(found.iter().eq(wanted), "{} records of {range:?}", found.len());
        }
    }
    let ScanRange { partition, end, .. } = ranges[1];
    let nothing = ScanRange { partition, from: end, end: end.next() };
    let nowhere = ScanRange { partition: Partition(PARTITIONS), ..nothing };
    let said = scanner.page(&[nowhere]).await.expect_err("there is none").to_string();
    assert!(said.contains("there is no "), "{said}");
}

/// A client tells once that it has come to the end of the log. That end is not the next one.
async fn a_scan_that_is_kept_misses_nothing_that_was_appended_since(subject: Subject) {
    let mut scanner = subject.log.scan(&subject.topic).unwrap();
    let mut from = None;
    for number in 0..8 {
        let record = record("one", format!("{number}"));
        let Position { partition, offset } = subject.log.append(&subject.spec, record).await.unwrap();
        let range = ScanRange { partition, from: from.unwrap_or(offset), end: offset.next() };
        let page = timeout(DEADLINE, scanner.page(&[range])).await.expect("a page in time").unwrap();
        let found: Vec<Offset> = page.records.iter().map(|(offset, _)| *offset).collect();
        assert_eq!((page.next, found), (range.end, vec![offset]), "record {number}");
        from = Some(page.next);
        // Passes in any case; meanwhile the client comes to the end.
        tokio::time::sleep(Duration::from_millis(150 * number)).await;
    }
}

/// A replica that has just become the leader may not know yet how far the log reaches.
async fn a_scan_of_more_than_the_log_has_is_refused(subject: Subject) {
    let Position { partition, offset } = subject.log.append(&subject.spec, record("one", "0")).await.unwrap();
    let mut scanner = subject.log.scan(&subject.topic).unwrap();
    let end = offset.next();
    let more = ScanRange { partition, from: end, end: end.next() };
    let said = timeout(DEADLINE, scanner.page(&[more])).await.expect("an answer").expect_err("refused").to_string();
    assert!(said.contains(&format!("ends at {end}, and was told to end at {}", end.next())), "{said}");
    let page = timeout(DEADLINE, scanner.page(&[ScanRange { partition, from: offset, end }])).await.expect("a page");
    assert_eq!(page.unwrap().records.len(), 1);
}

async fn a_scan_passes_over_what_the_log_has_deleted(subject: Subject) {
    let mut written = Vec::new();
    for number in 0..10 {
        written.push(subject.log.append(&subject.spec, record("one", format!("{number}"))).await.unwrap());
    }
    let Position { partition, offset: first } = written[0];
    let LogAddress::Kafka { brokers } = &subject.address else { panic!("{:?}", subject.address) };
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(&subject.topic, partition.0, rdkafka::Offset::Offset(written[6].offset.0)).unwrap();
    admin.delete_records(&below, &AdminOptions::new()).await.unwrap();

    let end = written[9].offset.next();
    let mut scanner = subject.log.scan(&subject.topic).unwrap();
    let range = ScanRange { partition, from: first, end };
    let page = timeout(DEADLINE, scanner.page(&[range])).await.expect("a page in time").unwrap();
    assert_eq!((page.from, page.next), (first, end));
    let found: Vec<Offset> = page.records.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(found, written[6..].iter().map(|position| position.offset).collect::<Vec<_>>());
}

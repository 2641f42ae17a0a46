use super::*;

const DEFAULT: usize = 10_000;

#[test]
fn the_newest_are_kept_and_all_are_counted() {
    let ledger = RequestLedger::keeping(3);
    for n in 0..10 {
        ledger.arrived(entry("resend", None));
        ledger.effect(Entry { replayed: n == 9, ..entry(if n % 2 == 0 { "resend" } else { "stripe" }, None) });
    }
    assert_eq!(seqs(&ledger.requests(&Filter::default())), [8, 9, 10]);
    let page = |since, limit| Filter { since: Some(since), limit: Some(limit), ..Filter::default() };
    assert_eq!(seqs(&ledger.effects(&page(0, 2))), [8, 9], "the oldest first");
    assert_eq!(seqs(&ledger.effects(&page(9, 2))), [10]);
    let counts = [
        ("resend", LedgerCounts { requests: 10, effects: 5, replays: 0 }),
        ("stripe", LedgerCounts { requests: 0, effects: 4, replays: 1 }),
    ];
    assert_eq!(ledger.counts(), counts.into());
    ledger.answered(1, 200, false);
    ledger.forget();
    assert_eq!((ledger.counts().len(), ledger.requests(&Filter::default()).len()), (0, 0));
}

#[test]
fn large_bodies_count_for_more() {
    let ledger = RequestLedger::keeping(3);
    let large = || Entry { body: Arc::new(Value::from("x".repeat(2 * ENTRY))), ..entry("resend", None) };
    for _ in 0..3 {
        ledger.arrived(large());
    }
    assert_eq!(seqs(&ledger.requests(&Filter::default())), [3]);
    ledger.arrived(Entry { body: Arc::new(Value::from("x".repeat(9 * ENTRY))), ..entry("resend", None) });
    assert_eq!(seqs(&ledger.requests(&Filter::default())), [4], "the newest is kept whatever its size");
}

fn entry(provider: &'static str, key: Option<&str>) -> Entry {
    Entry {
        seq: 0,
        at: Timestamp::from_seconds(1_767_261_600),
        provider,
        operation: "emails.send".into(),
        idempotency_key: key.map(Into::into),
        replayed: false,
        status: None,
        user: None,
        to: None,
        body: Arc::new(Value::Null),
        result: None,
    }
}

fn seqs(entries: &[Arc<Entry>]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

#[test]
fn filters_hold_together() {
    let ledger = RequestLedger::keeping(DEFAULT);
    for (provider, key) in [("resend", Some("a")), ("stripe", Some("a")), ("resend", None), ("resend", Some("a"))] {
        ledger.effect(entry(provider, key));
    }
    let filter = |provider: Option<&str>, key: Option<&str>, since| Filter {
        provider: provider.map(Into::into),
        key: key.map(Into::into),
        since,
        limit: None,
    };
    assert_eq!(seqs(&ledger.effects(&Filter::default())), [1, 2, 3, 4]);
    assert_eq!(seqs(&ledger.effects(&filter(Some("resend"), None, None))), [1, 3, 4]);
    assert_eq!(seqs(&ledger.effects(&filter(Some("resend"), Some("a"), Some(1)))), [4]);
    assert_eq!(seqs(&ledger.effects(&filter(None, None, Some(u64::MAX)))), [0; 0]);
}

#[test]
fn numbers_go_on_after_forgetting() {
    let ledger = RequestLedger::keeping(DEFAULT);
    let forgotten = ledger.arrived(entry("resend", None));
    ledger.forget();
    ledger.answered(forgotten, 200, false);
    ledger.arrived(entry("resend", None));
    let requests = ledger.requests(&Filter { since: Some(forgotten), ..Filter::default() });
    assert_eq!(seqs(&requests), [2]);
    assert_eq!(requests[0].status, None);
}

#[test]
fn a_request_shows_no_status_until_it_is_answered() {
    let ledger = RequestLedger::keeping(DEFAULT);
    let seq = ledger.arrived(entry("resend", None));
    assert_eq!(ledger.requests(&Filter::default())[0].status, None);
    ledger.answered(seq, 503, true);
    let requests = ledger.requests(&Filter::default());
    assert_eq!((requests[0].status, requests[0].replayed), (Some(503), true));
}

#[test]
fn a_hundred_thousand_entries_are_found_by_number_at_once() {
    let ledger = RequestLedger::keeping(DEFAULT);
    for _ in 0..100_000 {
        ledger.effect(entry("resend", None));
    }
    let last = ledger.effects(&Filter { since: Some(99_999), ..Filter::default() });
    assert_eq!(seqs(&last), [100_000]);
}

//! What a destination's answers say of how much it may still be asked.
//!
//! Facts: the header fields of the IETF's draft "RateLimit header fields for HTTP" (up to version 7), as Resend and
//! Novu send them: `ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset` (seconds), `ratelimit-policy` (`2;w=1`;
//! several with commas). Others put the time of the reset there instead, as epoch in seconds or milliseconds, and later
//! versions of the draft the limit behind a name (`"burst";q=100;w=60`).

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap};
use usher_proto::Timestamp;
use usher_service::clock;

use crate::engine::quota::{Pace, RateLimitHeaders};

/// The longest window and the furthest reset that are believed: a month.
const LONGEST: f64 = 31.0 * 86_400.0;
/// A reset from here on is an epoch in seconds (of 2001 or later), and from there on one in milliseconds.
const EPOCH_SECONDS: f64 = 1e9;
const EPOCH_MILLIS: f64 = 1e12;

/// Where the further requests of a call wait for their turns: the first one has had its own.
#[async_trait]
pub(crate) trait RequestGate: Send + Sync {
    /// Waits for leave to make one more request now.
    async fn pass(&self);
}

/// A call that is being made.
struct RunningCall {
    observed: RefCell<Option<RateLimitHeaders>>,
    begun: Cell<bool>,
    gate: Arc<dyn RequestGate>,
}

tokio::task_local! {
    static CALL: RunningCall;
}

/// Makes a call, lets its requests go in wait_for_gate, and hears what the last of its answers said; none if there was no
/// answer. It need not be handed through the connectors, which have no use for it.
pub(crate) async fn calling<F: Future>(call: F, gate: Arc<dyn RequestGate>) -> (F::Output, Option<RateLimitHeaders>) {
    let of = RunningCall { observed: RefCell::default(), begun: Cell::new(false), gate };
    CALL.scope(of, async {
        let output = call.await;
        (output, CALL.with(|call| call.observed.take()))
    })
    .await
}

/// A request is about to be made. Outside of a call of ours nothing is counted.
pub(super) async fn wait_for_gate() {
    let next_request = |call: &RunningCall| call.begun.replace(true).then(|| call.gate.clone());
    if let Ok(Some(gate)) = CALL.try_with(next_request) {
        gate.pass().await;
    }
}

/// An answer has come.
pub(super) fn observe_headers(headers: &HeaderMap) {
    // Outside of a call of ours nobody demand to know.
    let _ = CALL.try_with(|call| call.observed.replace(Some(read(headers))));
}

/// The rate limit headers of an answer. One that cannot be read is left out and named.
fn read(headers: &HeaderMap) -> RateLimitHeaders {
    let mut unreadable = None;
    let mut field = |name: &'static str, read: &mut dyn FnMut(&str) -> Option<()>| {
        let Some(value) = headers.get(name) else { return };
        if value.to_str().ok().and_then(|text| read(text.trim())).is_none() {
            unreadable = Some(name);
        }
    };
    let (mut limit, mut policies, mut remaining, mut reset) = (None, Vec::new(), None, None);
    field("ratelimit-limit", &mut |text| {
        // Drafts up to the sixth list the windows here, behind the limit that is nearest.
        let (first, rest) = text.split_once(',').unwrap_or((text, ""));
        let first = first.split(';').next()?.trim().parse().ok().filter(|limit| *limit > 0)?;
        (limit, policies) = (Some(first), listed(rest).unwrap_or_default());
        Some(())
    });
    field("ratelimit-policy", &mut |text| {
        policies = listed(text)?;
        Some(())
    });
    field("ratelimit-remaining", &mut |text| {
        remaining = Some(text.split([',', ';']).next()?.trim().parse().ok()?);
        Some(())
    });
    field("ratelimit-reset", &mut |text| {
        reset = Some(until_reset(text.parse().ok()?, || answered_at(headers))?);
        Some(())
    });
    RateLimitHeaders { policies, limit, remaining, reset, unreadable }
}

/// Limits with their windows: `2;w=1`, `10;w=1, 1000;w=3600`, `"burst";q=100;w=60`. None if one of them is none.
fn listed(text: &str) -> Option<Vec<Pace>> {
    let policy = |text: &str| {
        let mut parts = text.split(';').map(str::trim);
        let first = parts.next()?;
        let (mut calls, mut per) = (first.parse().ok(), None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "w" => per = Some(value.trim().parse::<u64>().ok()?),
                "q" => calls = Some(value.trim().parse().ok()?),
                _ => {}
            }
        }
        let per = per.filter(|seconds| *seconds > 0 && *seconds as f64 <= LONGEST)?;
        Some(Pace { calls: calls.filter(|calls| *calls > 0)?, per: Duration::from_secs(per) })
    };
    text.split(',').map(policy).collect()
}

/// The time until a reset that is said in seconds or as an epoch; nothing where it is over. None beyond what is
/// believed.
fn until_reset(number: f64, answered_at: impl Fn() -> Timestamp) -> Option<Duration> {
    let seconds = match number {
        millis if millis >= EPOCH_MILLIS => (millis - answered_at().millis() as f64) / 1e3,
        seconds if seconds >= EPOCH_SECONDS => seconds - answered_at().millis() as f64 / 1e3,
        // Negative seconds are none; an epoch that is over has come to its end.
        seconds => return (0.0..=LONGEST).contains(&seconds).then(|| Duration::from_secs_f64(seconds)),
    };
    (seconds <= LONGEST).then(|| Duration::from_secs_f64(seconds.max(0.0)))
}

/// The destination's own time, where it says it: its epochs go by it.
fn answered_at(headers: &HeaderMap) -> Timestamp {
    let date = headers.get(DATE).and_then(|date| DateTimeParser::new().parse_timestamp(date.to_str().ok()?).ok());
    date.map_or_else(clock::wall, |date| Timestamp::from_millis(date.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::testing::answer;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct CountingGate(AtomicUsize);

    #[async_trait]
    impl RequestGate for CountingGate {
        async fn pass(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn every_request_of_a_call_but_the_first_waits_for_a_turn_of_its_own() {
        let passed = Arc::new(CountingGate::default());
        let three = async {
            for _ in 0..3 {
                wait_for_gate().await;
            }
        };
        calling(three, passed.clone()).await;
        wait_for_gate().await;
        assert_eq!(passed.0.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_last_answer_of_a_call_is_heard() {
        let headers = answer(200, "")
            .with("ratelimit-limit", "2, 2;w=1")
            .with("ratelimit-policy", "2;w=1")
            .with("ratelimit-remaining", "0")
            .with("ratelimit-reset", "0.5")
            .headers;
        let calling = |headers: Option<HeaderMap>| {
            let call = async move { headers.iter().for_each(observe_headers) };
            async { super::calling(call, Arc::new(CountingGate::default())).await.1 }
        };
        let room = calling(Some(headers.clone())).await;
        let expected = RateLimitHeaders {
            policies: vec![second(2)],
            limit: Some(2),
            remaining: Some(0),
            reset: Some(Duration::from_millis(500)),
            unreadable: None,
        };
        assert_eq!(room, Some(expected));
        assert_eq!(calling(None).await, None, "nothing of another call's");
        observe_headers(&headers);
    }

    fn second(calls: u32) -> Pace {
        Pace { calls, per: Duration::from_secs(1) }
    }

    #[test]
    fn what_cannot_be_read_says_nothing_and_is_named() {
        let unreadable = |name, value| {
            let headers = read(&answer(429, "").with(name, value).headers);
            assert_eq!(
                RateLimitHeaders { unreadable: None, ..headers.clone() },
                RateLimitHeaders::default(),
                "{value}"
            );
            assert_eq!(headers.unreadable, Some(name), "{value}");
        };
        for limit in ["many", "0", "-1", "", "99999999999999999999", "1.5", "NaN"] {
            unreadable("ratelimit-limit", limit);
        }
        for reset in ["-1", "soon", "NaN", "inf", "400000000", "9999999999", "99999999999999999"] {
            unreadable("ratelimit-reset", reset);
        }
        for policy in ["100", "0;w=1", "100;w=0", "100;w=-1", "100;w=99999999999", "x;w=1", "10;w=1, 5"] {
            unreadable("ratelimit-policy", policy);
        }
        assert_eq!(read(&answer(200, "").headers), RateLimitHeaders::default());
    }

    #[test]
    fn several_windows_are_read_in_every_spelling() {
        let hour = Pace { calls: 1_000, per: Duration::from_secs(3_600) };
        let policies = |name, value| read(&answer(200, "").with(name, value).headers).policies;
        for policy in ["10;w=1, 1000;w=3600", "10; w=1 ,1000;w=3600;burst=2", "\"a\";q=10;w=1,\"b\";q=1000;w=3600"] {
            assert_eq!(policies("ratelimit-policy", policy), [second(10), hour], "{policy}");
        }
        assert_eq!(policies("ratelimit-limit", "10, 10;w=1, 1000;w=3600"), [second(10), hour]);
    }

    #[test]
    fn a_reset_is_a_number_of_seconds_or_an_epoch_by_the_destinations_clock() {
        let date = "Wed, 31 Dec 2025 23:59:00 GMT";
        let reset = |value| read(&answer(200, "").with("date", date).with("ratelimit-reset", value).headers).reset;
        for (value, seconds) in [
            ("60", 60.0),
            ("0.25", 0.25),
            ("1767225600", 60.0),
            ("1767225600.5", 60.5),
            ("1767225600000", 60.0),
            ("1767225500", 0.0),
            ("86400", 86_400.0),
        ] {
            assert_eq!(reset(value), Some(Duration::from_secs_f64(seconds)), "{value}");
        }
        assert_eq!(reset("1777225600"), None, "in four months");
        let soon = clock::wall().millis() / 1_000 + 30;
        let by_our_clock = until_reset(soon as f64, clock::wall).expect("half a minute");
        assert!(by_our_clock > Duration::from_secs(20) && by_our_clock <= Duration::from_secs(30));
    }
}

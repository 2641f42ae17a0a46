//! Reads the rate limits in a destination's answers, and makes the further requests of a call wait for permits.
//!
//! Facts: the header fields of the IETF draft "RateLimit header fields for HTTP" (up to version 7), as Resend and Novu
//! send them: `ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset` (seconds), `ratelimit-policy` (`2;w=1`;
//! several are separated by commas). Other destinations send the time of the reset in `ratelimit-reset`, as an epoch in
//! seconds or milliseconds. Later versions of the draft put the limit after a name (`"burst";q=100;w=60`).

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap};
use usher_proto::Timestamp;
use usher_quota::{Pace, RateLimitHeaders};
use usher_service::clock;

/// Longest window and furthest reset that are accepted, in seconds: 31 days.
const LONGEST: f64 = 31.0 * 86_400.0;
/// A reset from this value on is an epoch in seconds (2001 or later), from `EPOCH_MILLIS` on one in milliseconds.
const EPOCH_SECONDS: f64 = 1e9;
const EPOCH_MILLIS: f64 = 1e12;

/// Rate limiter for the further requests of a call. The first request has the permit of the call itself.
#[async_trait]
pub trait RequestGate: Send + Sync {
    /// Waits for a permit to make one more request now.
    async fn pass(&self);
}

/// State of a call in flight.
struct RunningCall {
    observed: RefCell<Option<RateLimitHeaders>>,
    begun: Cell<bool>,
    gate: Arc<dyn RequestGate>,
}

tokio::task_local! {
    static CALL: RunningCall;
}

/// Runs a call. Its further requests wait at `gate`. Also returns the rate-limit headers of the call's last answer, or
/// `None` if there was no answer. The state is task-local, because the connectors have no use for it.
pub async fn calling<F: Future>(call: F, gate: Arc<dyn RequestGate>) -> (F::Output, Option<RateLimitHeaders>) {
    let of = RunningCall { observed: RefCell::default(), begun: Cell::new(false), gate };
    CALL.scope(of, async {
        let output = call.await;
        (output, CALL.with(|call| call.observed.take()))
    })
    .await
}

/// Waits for a permit if this is a further request of the current call. Does nothing outside a call.
pub(super) async fn wait_for_gate() {
    let next_request = |call: &RunningCall| call.begun.replace(true).then(|| call.gate.clone());
    if let Ok(Some(gate)) = CALL.try_with(next_request) {
        gate.pass().await;
    }
}

/// Records the rate-limit headers of an answer for the current call.
pub(super) fn observe_headers(headers: &HeaderMap) {
    // Outside a call nothing reads the headers.
    let _ = CALL.try_with(|call| call.observed.replace(Some(read(headers))));
}

/// Returns the rate-limit headers of an answer. An unreadable header is ignored and its name is stored in `unreadable`.
fn read(headers: &HeaderMap) -> RateLimitHeaders {
    let mut unreadable = None;
    let mut field = |name: &'static str, read: &mut dyn FnMut(&str) -> Option<()>| {
        let Some(value) = headers.get(name) else { return };
        if value.to_str().ok().and_then(|text| read(text.trim())).is_none() {
            unreadable = Some(name);
        }
    };
    let mut limit = None;
    let mut policies = Vec::new();
    let mut remaining = None;
    let mut reset = None;
    field("ratelimit-limit", &mut |text| {
        // Drafts up to the sixth list the windows here, after the limit that is closest to being reached.
        let (first, rest) = text.split_once(',').unwrap_or((text, ""));
        let first = first.split(';').next()?.trim().parse().ok().filter(|limit| *limit > 0)?;
        limit = Some(first);
        policies = listed(rest).unwrap_or_default();
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

/// Parses limits with their windows: `2;w=1`, `10;w=1, 1000;w=3600`, `"burst";q=100;w=60`. `None` if one is invalid.
fn listed(text: &str) -> Option<Vec<Pace>> {
    let policy = |text: &str| {
        let mut parts = text.split(';').map(str::trim);
        let first = parts.next()?;
        let mut calls = first.parse().ok();
        let mut per = None;
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

/// Returns the time until a reset, given in seconds or as an epoch; zero if it has passed. `None` beyond `LONGEST`.
fn until_reset(number: f64, answered_at: impl Fn() -> Timestamp) -> Option<Duration> {
    let seconds = match number {
        millis if millis >= EPOCH_MILLIS => (millis - answered_at().millis() as f64) / 1e3,
        seconds if seconds >= EPOCH_SECONDS => seconds - answered_at().millis() as f64 / 1e3,
        // A negative number of seconds is invalid, whereas an epoch in the past means that the reset is over.
        seconds => return (0.0..=LONGEST).contains(&seconds).then(|| Duration::from_secs_f64(seconds)),
    };
    (seconds <= LONGEST).then(|| Duration::from_secs_f64(seconds.max(0.0)))
}

/// Returns the destination's time from the `Date` header, because its epochs follow that clock; else the local time.
fn answered_at(headers: &HeaderMap) -> Timestamp {
    let date = headers.get(DATE).and_then(|date| DateTimeParser::new().parse_timestamp(date.to_str().ok()?).ok());
    date.map_or_else(clock::wall, |date| Timestamp::from_millis(date.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::testing::answer;

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

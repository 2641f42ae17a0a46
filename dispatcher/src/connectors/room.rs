//! What a destination's answers say of how much it may still be asked.
//!
//! Facts: the header fields of the IETF's draft "RateLimit header fields for HTTP" (up to version 7), as Resend and Novu
//! send them: `ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset` (seconds), `ratelimit-policy` (`2;w=1`).

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;

/// What the headers of an answer say of an account's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Room {
    /// How many calls the account may be asked in `window`.
    pub(crate) limit: Option<u32>,
    /// How long that is.
    pub(crate) window: Option<Duration>,
    /// How many of them are left.
    pub(crate) remaining: Option<u32>,
    /// After how long there are as many as at first.
    pub(crate) reset: Option<Duration>,
}

/// Where the further requests of a call wait for their turns: the first one has had its own.
#[async_trait]
pub(crate) trait Turnstile: Send + Sync {
    /// Waits for leave to make one more request now.
    async fn pass(&self);
}

/// A call that is being made.
struct Call {
    heard: Cell<Room>,
    begun: Cell<bool>,
    turnstile: Arc<dyn Turnstile>,
}

tokio::task_local! {
    static CALL: Call;
}

/// Makes a call, lets its requests go in turn, and hears what the last of its answers said. It need not be handed through
/// the connectors, which have no use for it.
pub(crate) async fn calling<F: Future>(call: F, turnstile: Arc<dyn Turnstile>) -> (F::Output, Room) {
    let of = Call { heard: Cell::default(), begun: Cell::new(false), turnstile };
    CALL.scope(of, async {
        let output = call.await;
        (output, CALL.with(|call| call.heard.get()))
    })
    .await
}

/// A request is about to be made. Outside of a call of ours nothing is counted.
pub(super) async fn turn() {
    let further = |call: &Call| call.begun.replace(true).then(|| call.turnstile.clone());
    if let Ok(Some(turnstile)) = CALL.try_with(further) {
        turnstile.pass().await;
    }
}

/// An answer has come.
pub(super) fn hear(headers: &HeaderMap) {
    let _ = CALL.try_with(|call| call.heard.set(Room::of(headers)));
}

impl Room {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let number = |name: &str| text(name)?.split([',', ';']).next()?.trim().parse().ok();
        let window = text("ratelimit-policy").and_then(|policy| {
            let window = policy.split([',', ';']).find_map(|part| part.trim().strip_prefix("w="))?;
            window.parse().ok().map(Duration::from_secs)
        });
        let reset = text("ratelimit-reset").and_then(|text| text.parse().ok());
        Self {
            limit: number("ratelimit-limit"),
            window,
            remaining: number("ratelimit-remaining"),
            reset: reset.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::testing::answer;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Passed(AtomicUsize);

    #[async_trait]
    impl Turnstile for Passed {
        async fn pass(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn every_request_of_a_call_but_the_first_waits_for_a_turn_of_its_own() {
        let passed = Arc::new(Passed::default());
        let three = async {
            for _ in 0..3 {
                turn().await;
            }
        };
        calling(three, passed.clone()).await;
        turn().await;
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
            let call = async move { headers.iter().for_each(hear) };
            async { super::calling(call, Arc::new(Passed::default())).await.1 }
        };
        let room = calling(Some(headers.clone())).await;
        let expected = Room {
            limit: Some(2),
            window: Some(Duration::from_secs(1)),
            remaining: Some(0),
            reset: Some(Duration::from_millis(500)),
        };
        assert_eq!(room, expected);
        assert_eq!(calling(None).await, Room::default(), "nothing of another call's");
        hear(&headers);
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        let headers = answer(429, "").with("ratelimit-limit", "many").with("ratelimit-reset", "-1").headers;
        assert_eq!(Room::of(&headers), Room::default());
    }
}

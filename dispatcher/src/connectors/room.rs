//! What a destination's answers say of how much it may still be asked.
//!
//! Facts: the header fields of the IETF's draft "RateLimit header fields for HTTP" (up to version 7), as Resend and Novu
//! send them: `ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset` (seconds), `ratelimit-policy` (`2;w=1`).

use std::cell::Cell;
use std::time::Duration;

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

tokio::task_local! {
    static HEARD: Cell<Room>;
}

/// Makes a call, and hears what the last of its answers said. It need not be handed through the connectors, which have no
/// use for it.
pub(crate) async fn hearing<F: Future>(call: F) -> (F::Output, Room) {
    HEARD
        .scope(Cell::default(), async {
            let output = call.await;
            (output, HEARD.with(Cell::get))
        })
        .await
}

/// An answer has come.
pub(super) fn hear(headers: &HeaderMap) {
    // Outside of a call of ours nobody listens.
    let _ = HEARD.try_with(|heard| heard.set(Room::of(headers)));
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

    #[tokio::test]
    async fn the_last_answer_of_a_call_is_heard() {
        let headers = answer(200, "")
            .with("ratelimit-limit", "2, 2;w=1")
            .with("ratelimit-policy", "2;w=1")
            .with("ratelimit-remaining", "0")
            .with("ratelimit-reset", "0.5")
            .headers;
        let ((), room) = hearing(async { hear(&headers) }).await;
        let expected = Room {
            limit: Some(2),
            window: Some(Duration::from_secs(1)),
            remaining: Some(0),
            reset: Some(Duration::from_millis(500)),
        };
        assert_eq!(room, expected);
        assert_eq!(hearing(async {}).await.1, Room::default(), "nothing of another call's");
        hear(&headers);
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        let headers = answer(429, "").with("ratelimit-limit", "many").with("ratelimit-reset", "-1").headers;
        assert_eq!(Room::of(&headers), Room::default());
    }
}

//! What connectors over HTTP share: one client each that follows no redirect, and one reading of what went wrong.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode, Url};
use usher_proto::{Json, Timestamp};
use usher_service::ConfigError;
use usher_service::clock;
use usher_service::options::Environment;

use super::path::Client;
use super::request_gate::{observe_headers, wait_for_gate};
use super::{ATTEMPT_DEADLINE, Lookup};
use crate::engine::{Cause, Outcome};

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How much of an answer is read. The destinations' answers are a few kilobytes.
const MAX_ANSWER: usize = 256 * 1024;
/// How much of an answer nobody reads is let by, and for how long, so that its connection can be used again.
const MAX_UNREAD: usize = 16 * 1024;
const UNREAD_DEADLINE: Duration = Duration::from_secs(1);
/// No error's name is longer.
const LONGEST_NAME: usize = 64;

/// A client for one destination. Redirects are not followed: they would carry the key to another place.
pub(super) fn client() -> Result<Client, ConfigError> {
    reqwest::Client::builder()
        .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(ATTEMPT_DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map(Client::new)
        .map_err(|error| ConfigError::new("TLS", error))
}

/// The address of a destination: `variable`, or its own. Paths are appended to it.
pub(super) fn base_url(environment: &Environment, variable: &str, default: &str) -> Result<String, ConfigError> {
    let text = environment.get(variable)?.unwrap_or_else(|| default.to_owned());
    let url: Url = text
        .parse()
        .map_err(|error| ConfigError::new(variable, format!("{error}; it is an address such as {default}")))?;
    let plain = url.query().is_none() && url.fragment().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err(ConfigError::new(variable, format!("it is an address such as {default}")))
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is none. Bytes and escapes that are no character become U+FFFD: an answer that is
    /// odd in a field nobody needs must not make what was done look undone.
    pub(super) fn json(&self) -> serde_json::Value {
        Json::read(&String::from_utf8_lossy(&self.body)).map(Json::to_value).unwrap_or_default()
    }

    /// How long the destination asks to wait: it says so in seconds, or as the time from which on it may be asked.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        let until = DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(Timestamp::from_millis(until.as_millisecond()).since(clock::wall()))
    }

    /// Status and the error's name, for dead letters and logs. What does not look like a name is left out: a message may
    /// repeat an address.
    pub(super) fn error(&self, name: Option<&str>) -> String {
        let letter = |b: u8| b.is_ascii_lowercase() || b == b'_' || b == b'.';
        let name = name.filter(|name| (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letter));
        let status = self.status.as_u16();
        name.map_or_else(|| status.to_string(), |name| format!("{status} {name}"))
    }

    /// The outcome to repeat, for this cause, when the destination asks for it.
    pub(super) fn retry(&self, cause: Cause) -> Outcome {
        Outcome::Retry { cause, after: self.retry_after() }
    }
}

/// Sends a request and reads the whole answer, or says why there is none.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, Outcome> {
    wait_for_gate().await;
    let mut response = request.send().await.map_err(|error| Outcome::retry(cause(&error)))?;
    let (status, headers) = (response.status(), response.headers().clone());
    observe_headers(&headers);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => body.extend_from_slice(&chunk),
            // The status is known, and what is needed of the body stands at its beginning.
            Ok(_) => return Ok(Answer { status, headers, body }),
            Err(error) => return Err(Outcome::retry(cause(&error))),
        }
    }
}

/// What an answer that tells nothing means to a look-up: whoever is out of order or throttles is asked again later.
pub(super) fn no_lookup(answer: Result<Answer, Outcome>) -> Lookup {
    match answer {
        Ok(answer) => match answer.status.as_u16() {
            408 => Lookup::Later(answer.retry(Cause::Timeout)),
            429 => Lookup::Later(answer.retry(Cause::Throttled)),
            500.. => Lookup::Later(answer.retry(Cause::Unavailable)),
            _ => Lookup::Unknown,
        },
        Err(outcome @ Outcome::Retry { .. }) => Lookup::Later(outcome),
        Err(_) => Lookup::Unknown,
    }
}

/// Sends a request of whose answer only status and headers count, however its body comes or does not come.
pub(super) async fn send_for_status(request: RequestBuilder) -> Result<Answer, Outcome> {
    wait_for_gate().await;
    let mut response = request.send().await.map_err(|error| Outcome::retry(cause(&error)))?;
    let (status, headers) = (response.status(), response.headers().clone());
    observe_headers(&headers);
    let rest = async {
        let mut unread = 0;
        while let (true, Ok(Some(chunk))) = (unread < MAX_UNREAD, response.chunk().await) {
            unread += chunk.len();
        }
    };
    // Too long or too slow, the connection is closed, and that is all.
    let _ = tokio::time::timeout(UNREAD_DEADLINE, rest).await;
    Ok(Answer { status, headers, body: Vec::new() })
}

fn cause(error: &reqwest::Error) -> Cause {
    if error.is_connect() {
        Cause::Unreachable
    } else if error.is_timeout() {
        Cause::Timeout
    } else {
        Cause::Interrupted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_does_not_make_an_answer_unreadable() {
        let read = |body: &[u8]| Answer { body: body.to_vec(), ..super::super::testing::answer(200, "") }.json();
        for (body, a) in [
            (&br#"{"a":"\ud800x"}"#[..], "\u{fffd}x"),
            (br#"{"a":"\udc00\ud83d\ude00\ud83d"}"#, "\u{fffd}\u{1f600}\u{fffd}"),
            (br#"{"a":"\\ud800","b":"\ud800"}"#, r"\ud800"),
            (b"{\"a\":\"\xff\"}", "\u{fffd}"),
        ] {
            assert_eq!(read(body)["a"], a, "{}", String::from_utf8_lossy(body));
        }
        for body in ["", "\\", r#"{"a":"\u"#, r#"{"a":"\ud8"#, "\\\u{1f600}", "<html>"] {
            assert_eq!(read(body.as_bytes()), serde_json::Value::Null, "{body}");
        }
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_until_a_time() {
        let asked = |text: &'static str| {
            super::super::testing::answer(429, "").with("retry-after", text).retry_after().map(|time| time.as_secs())
        };
        assert_eq!((asked("7"), asked(" 0.5 "), asked("-1"), asked("soon")), (Some(7), Some(0), None, None));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0), "it is over");
        assert!(asked("Fri, 06 Nov 2893 08:49:37 GMT").is_some_and(|seconds| seconds > 1_000_000));
    }

    #[test]
    fn an_error_is_told_by_its_name_and_never_by_its_words() {
        let answer = Answer { status: StatusCode::NOT_FOUND, headers: HeaderMap::new(), body: Vec::new() };
        assert_eq!(answer.error(Some("api.not_found_error")), "404 api.not_found_error");
        let long = "a".repeat(LONGEST_NAME + 1);
        for text in [None, Some(""), Some("No mailbox a@b.test"), Some("a@b.test"), Some("Dana"), Some(&*long)] {
            assert_eq!(answer.error(text), "404", "{text:?}");
        }
    }
}

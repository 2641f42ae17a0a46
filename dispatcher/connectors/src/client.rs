//! Shared by all connectors over HTTP: a client that follows no redirects, and the classification of transport errors.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use usher_engine::{Cause, Outcome};
use usher_proto::{Json, Timestamp};
use usher_service::ConfigError;
use usher_service::clock;
use usher_service::options::Environment;

use super::path::HttpClient;
use super::{ATTEMPT_DEADLINE, CallGate, Lookup, answer};

/// Time limit for establishing a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read at most. The destinations' answers are a few kilobytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Bytes of a body that may be ignored that are read at most, and the time limit for that. Reading the rest allows the connection
/// to be reused.
const MAX_UNREAD: usize = 16 * 1024;
const UNREAD_DEADLINE: Duration = Duration::from_secs(1);
/// Length of an error's name, at most.
const LONGEST_NAME: usize = 64;

/// Returns a client for one destination. It follows no redirects: they would send the key to another host.
pub(super) fn build() -> Result<HttpClient, ConfigError> {
    reqwest::Client::builder()
        .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(ATTEMPT_DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map(HttpClient::new)
        .map_err(|error| ConfigError::new("TLS", error))
}

/// Returns the base URL of a destination: the value of `variable`, or else `default`. Paths are appended to it.
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

/// An answer. Its body is cut after `MAX_ANSWER` bytes.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl HttpAnswer {
    /// Returns the body as JSON; null if it is not JSON. Invalid bytes and escapes become U+FFFD: an invalid character
    /// in an unused field must not make a completed request look like a failed one.
    pub(super) fn json(&self) -> serde_json::Value {
        Json::read(&String::from_utf8_lossy(&self.body)).map(Json::to_value).unwrap_or_default()
    }

    /// Returns the pause that the destination demands in `Retry-After`, given in seconds or as a time.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        let until = DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(Timestamp::from_millis(until.as_millisecond()).since(clock::wall()))
    }

    /// Returns the status and the error's name, for dead letters and logs. A text that does not look like a name is
    /// omitted: an error message may repeat an address.
    pub(super) fn error(&self, name: Option<&str>) -> String {
        let letter = |b: u8| b.is_ascii_lowercase() || b == b'_' || b == b'.';
        let name = name.filter(|name| (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letter));
        let status = self.status.as_u16();
        name.map_or_else(|| status.to_string(), |name| format!("{status} {name}"))
    }

    /// Returns a retry for this cause, after the pause that the destination demands.
    pub(super) fn retry(&self, cause: Cause) -> Outcome {
        Outcome::Retry { cause, after: self.retry_after() }
    }
}

/// Sends a request, when the gate allows it, and reads the head of the answer.
async fn receive_head(request: RequestBuilder, gate: &CallGate, clean: Clean<'_>) -> Result<Response, Outcome> {
    gate.pass().await;
    let response = request.send().await.map_err(|error| failed(&error, gate, clean))?;
    gate.observe(response.headers());
    Ok(response)
}

/// Records why a request got no answer, and returns the retry.
fn failed(error: &reqwest::Error, gate: &CallGate, clean: Clean<'_>) -> Outcome {
    gate.refused(answer::no_answer(error, clean));
    Outcome::retry(cause(error))
}

/// Removes from a text of an answer what must not be kept of it, before the answer is shown to operators.
pub(super) type Clean<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// Sends a request and reads the answer. Returns a retry if there is no answer.
pub(super) async fn send(request: RequestBuilder, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
    send_clean(request, gate, &str::to_owned).await
}

/// As [`send`]; `clean` is applied to what operators see of the answer.
pub(super) async fn send_clean(
    request: RequestBuilder,
    gate: &CallGate,
    clean: Clean<'_>,
) -> Result<HttpAnswer, Outcome> {
    let mut response = receive_head(request, gate, clean).await?;
    let status = response.status();
    let headers = response.headers().clone();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => body.extend_from_slice(&chunk),
            // The end of the body, or of what is read of it: the needed fields stand at the beginning.
            Ok(_) => {
                if !status.is_success() {
                    gate.refused(answer::refusal(status, &body, clean));
                }
                return Ok(HttpAnswer { status, headers, body });
            }
            Err(error) => return Err(failed(&error, gate, clean)),
        }
    }
}

/// Returns the result of a lookup whose answer is not a success. Timeouts, throttling and server errors mean that the
/// lookup is repeated later; other answers leave the effect unknown.
pub(super) fn no_lookup(answer: Result<HttpAnswer, Outcome>) -> Lookup {
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

/// Sends a request of whose answer status and headers matter. A body that is late, long or broken does not change the result:
/// what has arrived of it is returned.
pub(super) async fn send_for_status(request: RequestBuilder, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
    send_clean_for_status(request, gate, &str::to_owned).await
}

/// As [`send_for_status`]; `clean` is applied to what operators see of the answer.
pub(super) async fn send_clean_for_status(
    request: RequestBuilder,
    gate: &CallGate,
    clean: Clean<'_>,
) -> Result<HttpAnswer, Outcome> {
    let mut response = receive_head(request, gate, clean).await?;
    let mut body = Vec::new();
    let rest = async {
        while let (true, Ok(Some(chunk))) = (body.len() < MAX_UNREAD, response.chunk().await) {
            body.extend_from_slice(&chunk);
        }
    };
    // If the body is too long or too slow, dropping the response closes the connection.
    let _ = tokio::time::timeout(UNREAD_DEADLINE, rest).await;
    if !response.status().is_success() {
        gate.refused(answer::refusal(response.status(), &body, clean));
    }
    Ok(HttpAnswer { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
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
        let read = |body: &[u8]| HttpAnswer { body: body.to_vec(), ..super::super::testing::answer(200, "") }.json();
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
        let answer = HttpAnswer { status: StatusCode::NOT_FOUND, headers: HeaderMap::new(), body: Vec::new() };
        assert_eq!(answer.error(Some("api.not_found_error")), "404 api.not_found_error");
        let long = "a".repeat(LONGEST_NAME + 1);
        for text in [None, Some(""), Some("No mailbox a@b.test"), Some("a@b.test"), Some("Dana"), Some(&*long)] {
            assert_eq!(answer.error(text), "404", "{text:?}");
        }
    }
}

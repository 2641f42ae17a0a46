//! Builds the URL of every request. No other code does.
//!
//! A path is built segment by segment. Escaping alone does not keep a value within its segment: a URL parser treats
//! `%2E` as a dot segment (WHATWG URL, "double-dot path segment") and removes it together with the preceding segment,
//! and proxies decode once more. A value that any parser could treat as another path is therefore refused before
//! anything is sent, and the URL parser's result for the whole path is compared with the path that was built.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Url};
use usher_engine::Outcome;
use usher_proto::Reason;

use super::PrepareError;

/// Length of a URL, at most. Servers refuse longer ones (RFC 9110, 4.1: at least 8,000 octets are to be supported).
const LONGEST: usize = 8000;
/// Number of times a value is decoded to find out how it could be interpreted. A value that can be decoded more often
/// is refused.
const DECODED: usize = 4;
/// Bytes that are escaped in a segment and in a query: all except letters, digits, `-`, `_` and `~`. A dot is escaped,
/// too, so that no value can be a dot segment as it is sent.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// A path of a destination's API, with its query: `/v1/customers/cus_1?limit=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(String);

impl Path {
    /// Returns a path without values, as the destination documents it.
    pub(super) fn of(fixed: &'static str) -> Self {
        Self(fixed.to_owned())
    }

    /// Appends a part without values.
    pub(super) fn then(mut self, fixed: &'static str) -> Self {
        self.0.push_str(fixed);
        self
    }

    /// Appends the value of the parameter `name` as one segment.
    pub(super) fn segment(mut self, name: &str, value: &str) -> Result<Self, PrepareError> {
        if is_ambiguous(value, false) {
            return Err(PrepareError(format!("{name} could be read as another path, so it cannot be part of one")));
        }
        self.0.push('/');
        self.0.push_str(&escape(value));
        Ok(self)
    }

    /// Appends a parameter to the query.
    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(&escape(name));
        self.0.push('=');
        self.0.push_str(&escape(value));
        self
    }

    /// Returns the path of a stored request, or `None` if it could be interpreted as another path.
    pub(super) fn kept(text: String) -> Option<Self> {
        let path = text.split('?').next().unwrap_or_default();
        let mut segments = path.strip_prefix('/')?.split('/');
        segments.all(|segment| !is_ambiguous(segment, false)).then_some(Self(text))
    }

    /// Returns the path and query of an address, with `behind` in front of them. The address must be
    /// [unambiguous](is_unambiguous), which is not checked here.
    pub(super) fn of_address(behind: &str, url: &Url) -> Self {
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        Self(format!("{behind}{}{query}", url.path()))
    }

    /// Returns the path as text, to be stored.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Returns the URL of this path under `base`, or `None` if the URL parser changes it or it exceeds `LONGEST`.
    fn under(&self, base: &str) -> Option<Url> {
        let own = Url::parse(base).ok()?;
        let url = Url::parse(&format!("{base}{}", self.0)).ok()?;
        let (path, query) = match self.0.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.0.as_str(), None),
        };
        let stays = url.origin() == own.origin()
            && url.path().strip_prefix(own.path().trim_end_matches('/')) == Some(path)
            && url.query() == query
            && url.fragment().is_none();
        (stays && url.as_str().len() <= LONGEST).then_some(url)
    }
}

/// HTTP client that makes requests to paths under a base URL, and to no others. Follows no redirects.
#[derive(Debug, Clone)]
pub(super) struct HttpClient(reqwest::Client);

impl HttpClient {
    pub(super) const fn new(client: reqwest::Client) -> Self {
        Self(client)
    }

    /// Returns a request to this path, or a rejection if the request would go to another path.
    pub(super) fn request(&self, method: Method, base: &str, path: &Path) -> Result<RequestBuilder, Outcome> {
        let url = path.under(base).ok_or_else(|| {
            Outcome::reject(Reason::InvalidRequest, "the request would go to another path than its operation's")
        })?;
        Ok(self.0.request(method, url))
    }
}

/// Rejects a request whose path cannot be built. This happens at sending if the path contains values of an answer.
impl From<PrepareError> for Outcome {
    fn from(error: PrepareError) -> Self {
        Self::reject(Reason::InvalidRequest, error.0)
    }
}

/// True if an address keeps its meaning as written: it has no dot segment, no backslash, and no character that a URL
/// parser removes or treats as one of these.
pub(super) fn is_unambiguous(address: &str) -> bool {
    let Some((_, rest)) = address.split_once("://") else { return false };
    let path = rest.find('/').map_or("", |begin| &rest[begin..]);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let odd = |b: u8| b <= b' ' || b == 0x7f || b == b'\\';
    !address.bytes().any(odd) && !is_ambiguous(path, true)
}

/// True if a parser could interpret the value as anything other than one segment: as a dot segment, as an empty
/// segment, or as either of these beside a separator. The check is repeated after each decoding, and ignores what
/// parsers remove (tabs, line ends, parameters after a semicolon). A slash between other characters is harmless,
/// because it is sent escaped.
fn is_ambiguous(value: &str, may_be_empty: bool) -> bool {
    let mut text = value.as_bytes().to_vec();
    for _ in 0..=DECODED {
        if text.contains(&b'\\') || text.split(|b| *b == b'/').any(|part| is_dotted(part, may_be_empty)) {
            return true;
        }
        let decoded: Vec<u8> = percent_decode(&text).collect();
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    true
}

fn is_dotted(part: &[u8], may_be_empty: bool) -> bool {
    let seen = |part: &[u8]| part.iter().copied().filter(|b| *b > b' ' && *b != 0x7f).collect::<Vec<u8>>();
    let whole = seen(part);
    let name = seen(part.split(|b| *b == b';').next().unwrap_or_default());
    matches!(name.as_slice(), b"." | b"..") || (whole.is_empty() && !may_be_empty)
}

/// Returns a value as a part of one segment of a path, escaped. `None` if it is empty or could be interpreted as anything
/// other than a part of one segment.
pub(super) fn part_of_segment(value: &str) -> Option<String> {
    (!is_ambiguous(value, false)).then(|| escape(value))
}

/// Escapes a text for use as one path segment or one part of a query.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_can_neither_leave_its_segment_nor_its_value() {
        assert_eq!(escape("../a?b&c=d/Zoë"), "%2E%2E%2Fa%3Fb%26c%3Dd%2FZo%C3%AB");
        assert_eq!(escape("user_37f2Qe-0"), "user_37f2Qe-0");
        let kept = |c: &char| escape(&c.to_string()) == c.to_string();
        let kept: String = ('\0'..='\u{ff}').filter(kept).collect();
        assert_eq!(kept, "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~");
        let path =
            Path::of("/a").segment("id", "b/c?d=e#f").map(|path| path.then("/g").query("h[i]", "j&k").query("l", ""));
        assert_eq!(path.map(Path::into_text).as_deref(), Ok("/a/b%2Fc%3Fd%3De%23f/g?h%5Bi%5D=j%26k&l="));
    }

    #[test]
    fn a_value_that_could_be_another_path_is_no_segment() {
        for value in [
            "",
            ".",
            "..",
            "%2e",
            "%2E%2e",
            ".%2E",
            "%252e",
            "%25252e.",
            "./",
            "a/..",
            "../a",
            "a//b",
            "/",
            "\\",
            "a\\b",
            "%5c",
            ".\t",
            "\t.\n.",
            ". ",
            "\0.",
            "..;a",
            "%2e%2e%2fa",
            "\r\n",
            "%2525252525252e",
        ] {
            assert!(Path::of("/a").segment("id", value).is_err(), "{value:?}");
            assert!(
                !value.contains('/') && !value.is_empty() || Path::kept(format!("/a/{value}")).is_none(),
                "{value:?}"
            );
        }
        for value in ["a", "...", ".a", "a.", "user_1", "a/b", "a b", "100%", "%41", "a%", "Zo\u{eb}", "a;b", "\r\na"] {
            let path = Path::of("/a").segment("id", value).expect(value);
            let url = path.under("http://x.test/base").expect(value);
            assert_eq!(url.path().matches('/').count(), 3, "{url}");
        }
    }

    #[test]
    fn a_path_that_was_kept_by_others_stays_under_its_base() {
        for path in ["/1/indexes/users/%2E", "/1/indexes/users/", "/1/indexes/users/..", "/1//users", "1", ""] {
            assert_eq!(Path::kept(path.to_owned()), None, "{path}");
        }
        let path = Path("/a/%2E%2E/b".to_owned());
        assert_eq!(path.under("http://x.test"), None, "seen also where it was not refused before");
        assert_eq!(Path("@y.test/a".to_owned()).under("http://x.test"), None);
        assert_eq!(Path("/a#b".to_owned()).under("http://x.test"), None);
        assert!(Path("/a?b=c".to_owned()).under("http://x.test/").is_none(), "a base has no slash at its end");
    }

    #[test]
    fn an_address_stays_as_it_is_written() {
        for address in ["https://a.test", "https://a.test/", "https://a.test/b//c/?d=../e#.", "http://[::1]:80/b%20c"] {
            assert!(is_unambiguous(address), "{address}");
        }
        for address in ["https://a.test/..", "https://a.test/b/%2e%2E/c", "https://a.test/\tb", "https:\\\\a.test", "a"]
        {
            assert!(!is_unambiguous(address), "{address}");
        }
    }
}

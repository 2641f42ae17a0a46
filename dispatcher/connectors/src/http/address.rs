//! Addresses that a flow may send requests to.

use std::net::IpAddr;

use reqwest::Url;
use usher_service::ConfigError;
use usher_service::options::Environment;

use crate::placeholder::{Pieces, SecretValues, TextPiece};
use crate::{PrepareError, path};

pub(super) const ALLOW_PLAIN: &str = "HTTP_ALLOW_PLAIN";

/// Permission to post over `http://`, without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlainHttp {
    /// Nowhere.
    Refused,
    /// To loopback and private addresses.
    Nearby,
}

impl PlainHttp {
    /// Reads `HTTP_ALLOW_PLAIN`.
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        match environment.get(ALLOW_PLAIN)?.as_deref() {
            None | Some("false") => Ok(Self::Refused),
            Some("true") => Ok(Self::Nearby),
            Some(_) => Err(ConfigError::new(ALLOW_PLAIN, "it may be true or false")),
        }
    }

    /// Bodies are personal data: without TLS they must not leave this machine or a private network.
    pub(super) fn check_scheme(self, url: &Url) -> Result<(), PrepareError> {
        if url.scheme() == "http" && !(self == Self::Nearby && is_near(url)) {
            let why = format!("url is http://, which {ALLOW_PLAIN} can allow to loopback and private addresses only");
            return Err(PrepareError(why));
        }
        Ok(())
    }
}

/// Returns the address of a request. Data of an event become segments of its path, or parts of them; scheme, host and port
/// come from the flow and from secrets alone.
///
/// # Errors
///
/// It is no address that a flow may use. The error never contains a part of it.
pub(super) fn resolve(pieces: &Pieces, secrets: &SecretValues, plain_http: PlainHttp) -> Result<Url, PrepareError> {
    let wrong = |why: &str| PrepareError(format!("url {why}"));
    let mut text = String::new();
    let mut has_path = false;
    for piece in &pieces.0 {
        match piece {
            TextPiece::Text(literal) => text.push_str(literal),
            TextPiece::Secret { secret } => text.push_str(secrets.get(secret).map(String::as_str).unwrap_or_default()),
            TextPiece::Data { data } => {
                let authority = text.split_once("://").map(|(_, rest)| rest);
                if !has_path && !authority.is_some_and(|rest| rest.contains('/') && !rest.starts_with('/')) {
                    return Err(wrong("would let an event choose where the request goes"));
                }
                if text.contains(['?', '#']) {
                    return Err(wrong("has data of an event outside of its path"));
                }
                has_path = true;
                let segment = path::part_of_segment(data)
                    .ok_or_else(|| wrong("contains data that is empty or could be read as another path"))?;
                text.push_str(&segment);
            }
        }
    }
    if !path::is_unambiguous(&text) {
        return Err(wrong("is no address"));
    }
    let url = Url::parse(&text).map_err(|_| wrong("is no address"))?;
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_anonymous {
        return Err(wrong("is no address of http:// or https://, without user and password"));
    }
    plain_http.check_scheme(&url)?;
    Ok(url)
}

/// True if a host is this machine or in a private network, judged by its name or address alone.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        // Names of a single label, such as those of containers, do not exist in public DNS.
        Err(_) => !host.contains('.') || [".localhost", ".internal", ".local"].iter().any(|end| host.ends_with(end)),
    }
}

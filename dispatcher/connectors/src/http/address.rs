//! Addresses that a flow may post to.

use std::net::IpAddr;

use reqwest::Url;
use usher_service::ConfigError;
use usher_service::options::Environment;

use crate::{PrepareError, is_template, path};

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

/// True if a flow may use the text as an address.
pub(crate) fn is_address(text: &str) -> bool {
    let is_fit = |url: Url| {
        let anonymous = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && anonymous
    };
    !is_template(text) && path::is_unambiguous(text) && text.parse().is_ok_and(is_fit)
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

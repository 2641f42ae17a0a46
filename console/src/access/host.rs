//! The hosts by which a server may be called.

use std::net::IpAddr;

/// Hosts that are allowed in the header `Host`.
#[derive(Debug, Clone)]
pub(crate) struct AllowedHosts {
    /// True if the names of loopback are allowed.
    loopback: bool,
    /// Further ones in lower case, with a port or without; without one, every port is allowed.
    named: Vec<String>,
}

impl AllowedHosts {
    /// Returns the allowed hosts of a server: the names of loopback if it is bound there, and those of the settings.
    pub(crate) fn new(loopback: bool, named: &[String]) -> Self {
        Self { loopback, named: named.iter().map(|name| name.to_ascii_lowercase()).collect() }
    }

    /// Returns true if `host` may call the server.
    pub(crate) fn allow(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let Some(name) = without_port(&host) else { return false };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = name == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        (self.loopback && is_loopback) || self.named.iter().any(|named| *named == host || named == name)
    }
}

/// Returns the host without its port; `None` if it is no host.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (is_port && !name.is_empty() && !name.contains(['/', '@', ' '])).then_some(name)
}

/// Returns the host of an origin such as `https://usher.acme.test:8443`; `None` for `null` and everything else.
pub(super) fn of_origin(origin: &str) -> Option<&str> {
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))?;
    (!host.is_empty() && !host.contains('/')).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_names_and_no_other() {
        let hosts = AllowedHosts::new(true, &[]);
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.0.0.2", "[::1]", "[::1]:80"] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "",
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test",
            "10.0.0.1",
            "localhost:x",
            "[::1",
            "a@localhost",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
        assert!(!AllowedHosts::new(false, &[]).allow("localhost"), "only if the server is bound there");
    }

    #[test]
    fn a_named_host_is_allowed_with_its_port_or_with_any() {
        let hosts = AllowedHosts::new(false, &["Usher.acme.test".to_owned(), "other.test:8443".to_owned()]);
        for host in ["usher.acme.test", "usher.acme.test:99", "other.test:8443"] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in ["other.test", "other.test:1", "x.usher.acme.test", "10.0.0.1"] {
            assert!(!hosts.allow(host), "{host}");
        }
    }
}

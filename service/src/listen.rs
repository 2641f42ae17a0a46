//! Parsing of listen addresses as operators write them.

use std::net::{Ipv4Addr, SocketAddr};

/// Parses `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`.
///
/// # Errors
///
/// The text has no host, no port, or a host name other than `localhost`. The error suggests a valid address.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = |text: &str| text.parse::<u16>().ok();
    if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let bare = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")).unwrap_or(text);
    if let Some(port) = port(bare) {
        return Err(format!("say on which address: 127.0.0.1:{port} for this machine alone, 0.0.0.0:{port} for all"));
    }
    Err("an address and a port are wanted, such as 127.0.0.1:8080".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_are_told_what_is_right() {
        for (text, address) in
            [("127.0.0.1:8080", "127.0.0.1:8080"), ("[::1]:0", "[::1]:0"), ("localhost:8080", "127.0.0.1:8080")]
        {
            assert_eq!(parse(text).map(|address| address.to_string()).as_deref(), Ok(address));
        }
        for text in [":8080", "8080", "*:8080"] {
            assert!(parse(text).is_err_and(|why| why.contains("127.0.0.1:8080 for this machine")), "{text}");
        }
        for text in ["", "localhost", "acme.test:80", "127.0.0.1", "localhost:99999", "http://127.0.0.1:80"] {
            assert!(parse(text).is_err_and(|why| why.contains("such as 127.0.0.1:8080")), "{text}");
        }
    }
}

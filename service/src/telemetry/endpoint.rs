//! The address of a collector.

use axum::http::Uri;

/// The path at which a collector takes spans. Source: opentelemetry.io/docs/specs/otlp (OTLP/HTTP request).
const PATH: &str = "/v1/traces";

/// Returns the URL for spans of a collector at this address.
///
/// # Errors
///
/// The address is no URL of a server, or contains something that would be lost or logged: a query, or a password.
pub(super) fn spans_url(address: &str) -> Result<String, &'static str> {
    let example = "it is the address of a collector, for instance http://127.0.0.1:4318";
    let uri: Uri = address.parse().map_err(|_| example)?;
    let (Some("http" | "https"), Some(authority), None) = (uri.scheme_str(), uri.authority(), uri.query()) else {
        return Err(example);
    };
    if authority.as_str().contains('@') {
        return Err("it must not contain a user or a password: OTEL_EXPORTER_OTLP_HEADERS takes a token");
    }
    Ok(format!("{}{PATH}", address.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_go_to_their_path_of_a_server_and_to_nothing_else() {
        for (address, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.test/", "https://collector.test/v1/traces"),
            ("https://collector.test/otlp", "https://collector.test/otlp/v1/traces"),
        ] {
            assert_eq!(spans_url(address).as_deref(), Ok(url));
        }
        for address in
            ["", "4318", "localhost:4318", "/v1/traces", "grpc://a:4317", "http://a/?b=c", "http://u:hunter2@a"]
        {
            let why = spans_url(address).expect_err(address);
            assert!(why.starts_with("it ") && !why.contains("hunter2"), "{address:?}: {why}");
        }
    }
}

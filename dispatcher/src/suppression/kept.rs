//! Requests that are kept with whom they go to. A request is repeated as it is while its outcome is not known; whether it
//! may be is looked at again each time, and only its connector can read the request itself.

/// Begins a request that has its recipients before it. No connector's request begins with it.
const MARK: u8 = 1;

/// A request with its recipients before it; one that goes to nobody stays as it is.
pub(crate) fn keep(recipients: &[String], request: Vec<u8>) -> Vec<u8> {
    if recipients.is_empty() {
        return request;
    }
    let mut kept = vec![MARK];
    // Texts are always JSON, and JSON of one line.
    kept.extend(serde_json::to_vec(recipients).unwrap_or_default());
    kept.push(b'\n');
    kept.extend(request);
    kept
}

/// The recipients and the request.
pub(crate) fn kept(kept: &[u8]) -> (Vec<String>, &[u8]) {
    let read = || {
        let rest = kept.strip_prefix(&[MARK])?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        Some((serde_json::from_slice(&rest[..end]).ok()?, &rest[end + 1..]))
    };
    read().unwrap_or((Vec::new(), kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_byte_for_byte_with_its_recipients() {
        let recipients = vec!["a@b.test".to_owned(), "\"q\n\"@b.test".to_owned()];
        let request = b"\x01\n{\"to\":\n".to_vec();
        assert_eq!(kept(&keep(&recipients, request.clone())), (recipients, request.as_slice()));
        assert_eq!(keep(&[], b"exact".to_vec()), b"exact");
        assert_eq!(kept(b"exact"), (Vec::new(), b"exact".as_slice()));
    }
}

//! The stored form of a request: the serialised request, preceded by its recipients. A request is repeated unchanged
//! while its outcome is unknown. Suppression is checked again before each repeat, and only the connector can parse the
//! request itself, so the recipients are stored separately.

/// First byte of a stored request that is preceded by its recipients. No connector's request begins with this byte.
const MARK: u8 = 1;

/// Returns the stored form of a request, with its recipients before it. A request without recipients
/// is returned unchanged.
pub fn keep(recipients: &[String], request: Vec<u8>) -> Vec<u8> {
    if recipients.is_empty() {
        return request;
    }
    let mut kept = vec![MARK];
    // A list of strings always serialises, and its JSON contains no line break.
    kept.extend(serde_json::to_vec(recipients).unwrap_or_default());
    kept.push(b'\n');
    kept.extend(request);
    kept
}

/// Splits a stored request into its recipients and the request. The list is empty if no recipients are stored.
pub fn kept(kept: &[u8]) -> (Vec<String>, &[u8]) {
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

//! An event as one signed HTTP request. Pure; [`super::sender`] sends it.

use bytes::Bytes;
use usher_proto::Timestamp;
use usher_proto::signature::SigningSecret;

use super::generator::GeneratedEvent;

/// A signed event, ready to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// The value of the `svix-id` header.
    pub id: String,
    /// The value of the `svix-timestamp` header, in Unix seconds.
    pub timestamp: String,
    /// The value of the `svix-signature` header.
    pub signature: String,
    /// The signed body, byte for byte.
    pub body: Bytes,
    /// Id of the Clerk user that the event is about. `None` if it is about no user.
    pub user: Option<String>,
}

impl SignedRequest {
    /// Signs an event that is sent at the time `at`.
    pub fn sign(secret: &SigningSecret, event: GeneratedEvent, at: Timestamp) -> Self {
        let timestamp = at.seconds().to_string();
        let signature = secret.sign(&event.id, &timestamp, &event.body);
        Self { id: event.id, timestamp, signature, body: event.body, user: event.user }
    }

    /// Returns the three signature headers.
    pub fn headers(&self) -> [(&'static str, &str); 3] {
        [("svix-id", &self.id), ("svix-timestamp", &self.timestamp), ("svix-signature", &self.signature)]
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::signature::{Signed, verify};

    use super::*;

    #[test]
    fn what_is_signed_verifies() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let now = Timestamp::from_millis(1_767_261_600_999);
        let event = GeneratedEvent { id: "msg_1".into(), user: None, body: Bytes::from_static(b"{}\n") };
        let request = SignedRequest::sign(&secret, event, now);
        assert_eq!(request.timestamp, "1767261600");
        let signed = Signed { id: &request.id, timestamp: &request.timestamp, signatures: &request.signature };
        assert_eq!(verify(&[secret], signed, &request.body, now), Ok(()));
    }
}

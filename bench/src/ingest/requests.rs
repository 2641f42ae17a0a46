//! Signed requests, made before they are sent: each has its own id, and each user's events have one body.

use anyhow::Context as _;
use bytes::Bytes;
use usher_proto::signature::{Signed, SigningSecret};
use usher_service::clock;

use crate::dispatcher::KeyChoice;
use crate::topic;

/// Body of one user's events.
#[derive(Debug)]
pub(crate) struct UserBody {
    /// Id of the user, the key of the records.
    pub(crate) user: String,
    /// Body of the requests.
    pub(crate) body: Bytes,
}

/// Requests that are signed and not sent yet.
#[derive(Debug)]
pub(crate) struct SignedRequests {
    /// Signed time, in Unix seconds.
    pub(crate) timestamp: String,
    users: Vec<UserBody>,
    keys: KeyChoice,
    signatures: Vec<String>,
    /// Number of the first request.
    base: usize,
}

/// One signed request.
#[derive(Debug, Clone)]
pub(crate) struct LoadRequest<'a> {
    /// `svix-id`.
    pub(crate) id: String,
    /// `svix-timestamp`.
    pub(crate) timestamp: &'a str,
    /// `svix-signature`.
    pub(crate) signature: &'a str,
    /// The user and the body.
    pub(crate) of: &'a UserBody,
}

/// Returns the id of a request.
fn id(number: usize) -> String {
    format!("msg_{number:09}")
}

/// Returns the number of the request with this id.
///
/// # Errors
///
/// The id is not one of a request.
pub(crate) fn number(id: &str) -> anyhow::Result<usize> {
    // A reference to an event has its source and instance before the id.
    let (_, digits) = id.rsplit_once("msg_").with_context(|| format!("an id of somebody else: {id}"))?;
    Ok(digits.parse()?)
}

impl SignedRequests {
    /// Signs `count` requests of `users` users; the first one has the number `base`.
    ///
    /// # Errors
    ///
    /// The secret is not a signing secret.
    pub(crate) fn sign(secret: &str, base: usize, count: usize, users: usize, keys: KeyChoice) -> anyhow::Result<Self> {
        let secret = SigningSecret::parse(secret)?;
        let timestamp = clock::now().seconds().to_string();
        let bodies: Vec<UserBody> = (0..users)
            .map(|user| {
                let webhook = topic::webhook("user.updated", user, user, topic::FILLING);
                UserBody { user: webhook.user, body: Bytes::from(webhook.body) }
            })
            .collect();
        let signatures = (0..count)
            .filter_map(|number| {
                let of = bodies.get(keys.user(number, users))?;
                Some(secret.sign(&id(base + number), &timestamp, &of.body))
            })
            .collect();
        Ok(Self { timestamp, users: bodies, keys, signatures, base })
    }

    /// Number of the first request.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// Number of requests.
    pub(crate) fn len(&self) -> usize {
        self.signatures.len()
    }

    /// Returns a request by its place; `None` if fewer were signed.
    pub(crate) fn get(&self, number: usize) -> Option<LoadRequest<'_>> {
        Some(LoadRequest {
            id: id(self.base + number),
            timestamp: &self.timestamp,
            signature: self.signatures.get(number)?,
            of: self.users.get(self.keys.user(number, self.users.len()))?,
        })
    }
}

impl<'a> LoadRequest<'a> {
    /// Returns the signature as it is verified.
    pub(crate) fn signed(&'a self) -> Signed<'a> {
        Signed { id: &self.id, timestamp: self.timestamp, signatures: self.signature }
    }

    /// Writes the request as HTTP/1.1 into a buffer, in place of its content.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>, host: &str, path: &str) {
        buffer.clear();
        let Self { id, timestamp, signature, of } = self;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nuser-agent: Svix-Webhooks/1.0\r\n\
             svix-id: {id}\r\nsvix-timestamp: {timestamp}\r\nsvix-signature: {signature}\r\ncontent-length: {}\r\n\r\n",
            of.body.len()
        );
        buffer.extend_from_slice(head.as_bytes());
        buffer.extend_from_slice(&of.body);
    }
}

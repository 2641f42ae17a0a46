//! Clerk events to send: bodies whose every field a test chooses, signed like Svix signs.

use bytes::Bytes;
use serde_json::{Value, json};
use usher_proto::signature::SigningSecret;
use usher_proto::{Event, EventId, Instance, Key, Record, Source, SubjectId};
use usher_service::clock;

/// An event as it is sent. Sending it again is the same webhook again.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The `svix-id`.
    pub id: String,
    /// Whom it concerns.
    pub user: String,
    /// Its type.
    pub kind: String,
    /// The body, exactly.
    pub body: String,
}

impl Webhook {
    /// An event of this type about `user`, with this `data`.
    pub fn new(kind: &str, user: &str, data: &Value) -> Self {
        let envelope = json!({
            "data": data, "object": "event", "type": kind,
            "timestamp": clock::now().millis(), "instance_id": "ins_test",
        });
        Self { id: crate::unique("msg_"), user: user.to_owned(), kind: kind.into(), body: envelope.to_string() }
    }

    /// The headers that sign it, for now.
    pub fn headers(&self, secret: &str) -> [(&'static str, String); 3] {
        let timestamp = clock::now().seconds().to_string();
        let secret = SigningSecret::parse(secret).expect("a signing secret");
        let signature = secret.sign(&self.id, &timestamp, self.body.as_bytes());
        [("svix-id", self.id.clone()), ("svix-timestamp", timestamp), ("svix-signature", signature)]
    }

    /// The record that ingest writes for it, for tests that write to the log themselves.
    pub fn record(&self) -> Record {
        let now = clock::now();
        let event = Event {
            id: EventId::new(&self.id),
            kind: self.kind.clone(),
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(&self.user)),
            occurred_at: now,
            received_at: now,
            provenance: Vec::new(),
            body: Bytes::from(self.body.clone()),
        };
        event.into_record()
    }
}

/// A user, as Clerk shows one.
#[derive(Debug, Clone)]
pub struct User {
    /// The id.
    pub id: String,
    /// The first name.
    pub first_name: String,
    /// The primary address, which stands second in the list.
    pub email: Option<String>,
    /// Milliseconds; counts up with every change.
    pub updated_at: i64,
    /// What `public_metadata.seq` says.
    pub seq: u64,
}

impl User {
    /// Somebody new.
    pub fn new() -> Self {
        let id = crate::unique("user_");
        let email = Some(format!("{}@mail.test", id.replace('_', ".")));
        Self { id, first_name: "Ann".into(), email, updated_at: clock::now().millis(), seq: 1 }
    }

    /// Somebody new who has no address.
    pub fn without_email() -> Self {
        Self { email: None, ..Self::new() }
    }

    fn data(&self) -> Value {
        let mut addresses = vec![json!({"id": "idn_other", "email_address": "other@mail.test"})];
        addresses.extend(self.email.as_ref().map(|email| json!({"id": "idn_primary", "email_address": email})));
        json!({
            "id": self.id, "object": "user", "username": null, "first_name": self.first_name, "last_name": "Lee",
            "primary_email_address_id": self.email.as_ref().map(|_| "idn_primary"),
            "primary_phone_number_id": null, "email_addresses": addresses, "phone_numbers": [],
            "public_metadata": {"seq": self.seq}, "created_at": 1_767_261_600_000_i64, "updated_at": self.updated_at,
        })
    }

    /// `user.created` in this state.
    pub fn created(&self) -> Webhook {
        Webhook::new("user.created", &self.id, &self.data())
    }

    /// `user.updated` in this state.
    pub fn updated(&self) -> Webhook {
        Webhook::new("user.updated", &self.id, &self.data())
    }

    /// `user.deleted`.
    pub fn deleted(&self) -> Webhook {
        Webhook::new("user.deleted", &self.id, &json!({"id": self.id, "object": "user", "deleted": true}))
    }

    /// The state after one more change.
    #[must_use]
    pub fn changed(&self) -> Self {
        Self { updated_at: self.updated_at + 1, seq: self.seq + 1, ..self.clone() }
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}

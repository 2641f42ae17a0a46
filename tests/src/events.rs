//! Clerk events to send. Tests choose every field of the body; signatures follow Svix.

use bytes::Bytes;
use serde_json::{Value, json};
use usher_proto::signature::SigningSecret;
use usher_proto::{Event, EventId, Instance, Key, Record, Source, SubjectId, Timestamp};
use usher_service::clock;

/// A webhook as it is sent. Sending the same value again repeats the webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The `svix-id`.
    pub id: String,
    /// Id of the user concerned.
    pub user: String,
    /// Event type, for example `user.created`.
    pub kind: String,
    /// Exact body.
    pub body: String,
}

impl Webhook {
    /// Creates an event of this type about `user` with this `data`.
    pub fn new(kind: &str, user: &str, data: &Value) -> Self {
        let envelope = json!({
            "data": data, "object": "event", "type": kind,
            "timestamp": clock::now().millis(), "instance_id": "ins_test",
        });
        crate::private::remember(data);
        Self { id: crate::unique("msg_"), user: user.to_owned(), kind: kind.into(), body: envelope.to_string() }
    }

    /// Returns the `svix-*` headers with a signature for the current time.
    pub fn headers(&self, secret: &str) -> [(&'static str, String); 3] {
        self.headers_at(secret, clock::now())
    }

    /// Returns the `svix-*` headers with a signature for this time.
    pub fn headers_at(&self, secret: &str, now: Timestamp) -> [(&'static str, String); 3] {
        let timestamp = now.seconds().to_string();
        let secret = SigningSecret::parse(secret).expect("a signing secret");
        let signature = secret.sign(&self.id, &timestamp, self.body.as_bytes());
        [("svix-id", self.id.clone()), ("svix-timestamp", timestamp), ("svix-signature", signature)]
    }

    /// Returns the record that ingest writes for it, for tests that append to the log themselves.
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

/// A user in the form of Clerk's API.
#[derive(Debug, Clone)]
pub struct User {
    /// User id.
    pub id: String,
    /// First name.
    pub first_name: String,
    /// Primary address, second in the list of addresses. `None` for a user without one.
    pub email: Option<String>,
    /// Time of the last change, in ms. Increases by 1 with every change.
    pub updated_at: i64,
    /// Value of `public_metadata.seq`: number of the state, from 1.
    pub seq: u64,
}

impl User {
    /// Creates a new user with an address.
    pub fn new() -> Self {
        let id = crate::unique("user_");
        let email = Some(format!("{}@mail.test", id.replace('_', ".")));
        Self { id, first_name: "Ann".into(), email, updated_at: clock::now().millis(), seq: 1 }
    }

    /// Creates a new user without a primary address.
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

    /// Returns a `user.created` event with this state.
    pub fn created(&self) -> Webhook {
        Webhook::new("user.created", &self.id, &self.data())
    }

    /// Returns a `user.updated` event with this state.
    pub fn updated(&self) -> Webhook {
        Webhook::new("user.updated", &self.id, &self.data())
    }

    /// Returns a `user.deleted` event.
    pub fn deleted(&self) -> Webhook {
        Webhook::new("user.deleted", &self.id, &json!({"id": self.id, "object": "user", "deleted": true}))
    }

    /// Returns the state after one more change.
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

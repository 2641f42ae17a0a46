//! Names of the headers of a log record. All values are UTF-8.

/// The event's id, by which repeated webhooks are recognised.
pub const EVENT_ID: &str = "usher-event-id";
/// The sender's event type, such as `user.created`.
pub const TYPE: &str = "usher-type";
/// Label of the event's source.
pub const SOURCE: &str = "usher-source";
/// The sender's instance, by the name under which its secret is configured.
pub const INSTANCE: &str = "usher-instance";
/// Label of the source that issued the record's key. Absent if that is the event's own source. An event of Resend may
/// concern a user of Clerk.
pub const SUBJECT_SOURCE: &str = "usher-subject-source";
/// Time of the event by the sender's clock, in RFC 3339 with milliseconds.
pub const OCCURRED_AT: &str = "usher-occurred-at";
/// Time at which ingest received the event, in RFC 3339 with milliseconds.
pub const RECEIVED_AT: &str = "usher-received-at";

/// The three parts of the signature as received, so that a record can be verified again.
pub const SVIX: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];
/// Stripe's signature with its time, as received.
pub const STRIPE_SIGNATURE: &str = "stripe-signature";
/// Nylas' signature, as received.
pub const NYLAS_SIGNATURE: &str = "x-nylas-signature";
/// The W3C trace context: the span of the request that delivered the event, as [`crate::TraceParent`] reads it.
pub const TRACEPARENT: &str = "traceparent";

/// True for the headers of a request that are stored with its event.
pub fn is_provenance(name: &str) -> bool {
    SVIX.contains(&name) || [STRIPE_SIGNATURE, NYLAS_SIGNATURE, TRACEPARENT].contains(&name)
}

/// On a dead letter: the flow whose run failed.
pub const FLOW: &str = "usher-flow";
/// On a dead letter: the step that failed.
pub const STEP: &str = "usher-step";
/// On a dead letter: the reason, as a label of [`crate::Reason`].
pub const REASON: &str = "usher-reason";
/// On a dead letter: the destination's error message, without personal data.
pub const ERROR: &str = "usher-error";
/// On a dead letter: number of attempts of the last step.
pub const ATTEMPTS: &str = "usher-attempts";
/// On a dead letter: the topic from which the event was read.
pub const ORIGINAL_TOPIC: &str = "usher-original-topic";
/// On a dead letter: the partition from which the event was read.
pub const ORIGINAL_PARTITION: &str = "usher-original-partition";
/// On a dead letter: the offset at which the event was read.
pub const ORIGINAL_OFFSET: &str = "usher-original-offset";
/// On a dead letter: the time at which the run was dead-lettered.
pub const DIED_AT: &str = "usher-died-at";

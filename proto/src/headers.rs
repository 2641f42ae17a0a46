//! Names of the headers that travel with a record. All values are UTF-8.

/// The event's id: what makes a repeated webhook recognisable.
pub const EVENT_ID: &str = "usher-event-id";
/// The sender's name for what happened, for instance `user.created`.
pub const TYPE: &str = "usher-type";
/// Who sent it.
pub const SOURCE: &str = "usher-source";
/// Which of the sender's instances, by the name its secret was configured under.
pub const INSTANCE: &str = "usher-instance";
/// Who gave out the record's key, where that is not the event's own source: an event of Resend may concern a user of Clerk.
pub const SUBJECT_SOURCE: &str = "usher-subject-source";
/// When it happened by the sender's clock, RFC 3339 with milliseconds.
pub const OCCURRED_AT: &str = "usher-occurred-at";
/// When it was received, RFC 3339 with milliseconds.
pub const RECEIVED_AT: &str = "usher-received-at";

/// The signature's three parts as they came, so that a record can be verified again.
pub const SVIX: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// On a dead letter: the flow that gave it up.
pub const FLOW: &str = "usher-flow";
/// On a dead letter: the step it died at.
pub const STEP: &str = "usher-step";
/// On a dead letter: why, one of [`crate::Reason`]'s labels.
pub const REASON: &str = "usher-reason";
/// On a dead letter: the destination's words, without personal data.
pub const ERROR: &str = "usher-error";
/// On a dead letter: how often its last step was attempted.
pub const ATTEMPTS: &str = "usher-attempts";
/// On a dead letter: the topic the event came from.
pub const ORIGINAL_TOPIC: &str = "usher-original-topic";
/// On a dead letter: the partition the event came from.
pub const ORIGINAL_PARTITION: &str = "usher-original-partition";
/// On a dead letter: the offset the event came from.
pub const ORIGINAL_OFFSET: &str = "usher-original-offset";
/// On a dead letter: when it was given up.
pub const DIED_AT: &str = "usher-died-at";

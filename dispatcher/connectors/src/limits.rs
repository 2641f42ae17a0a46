//! Values that each destination accepts for each parameter: one table for all destinations. [`fit`](super::fit) applies
//! it to every value before a connector receives it. Descriptive texts (a subject, a name) are shortened, so that they
//! never prevent the effect; identifiers are never changed. Each limit names its source. Nothing is cut if a provider
//! documents no limit.

use super::fit::{Alphabet, MaxLength, OnControlChars, OnTooLong, TextLimit};

/// Values that a destination accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueLimit {
    /// Nothing is known to be refused, or the connector itself checks it: paths, web addresses, whole documents.
    Any,
    /// A text.
    Text(TextLimit),
    /// A phone number. Clerk's test numbers are left out.
    Phone(TextLimit),
    /// Mailboxes.
    Mailboxes {
        /// Largest number of entries.
        most: usize,
        /// Form of the address.
        address: TextLimit,
        /// True if the local part is written in the form that SMTP requires.
        smtp: bool,
    },
    /// An integer from the first to the second value, both included.
    Number(u64, u64),
    /// Pairs of a name, which stands in the flow file, and a text.
    Pairs {
        /// Largest number of entries.
        most: usize,
        /// The names.
        name: TextLimit,
        /// A name that Usher reserves for itself.
        ours: Option<&'static str>,
        /// The texts.
        value: TextLimit,
        /// A name whose text identifies the affected object: it is refused rather than cut.
        identity: Option<&'static str>,
    },
}

/// Returns the limit of a text for people: it is folded into one line and cut.
const fn line(max_length: MaxLength) -> TextLimit {
    TextLimit {
        on_control_chars: OnControlChars::Fold,
        on_too_long: OnTooLong::Cut,
        max_length,
        alphabet: Alphabet::Any,
    }
}

/// Returns the limit of an identifier: it is accepted unchanged, or refused.
const fn id(max_length: MaxLength) -> TextLimit {
    TextLimit {
        on_control_chars: OnControlChars::Refuse,
        on_too_long: OnTooLong::Refuse,
        max_length,
        alphabet: Alphabet::Any,
    }
}

/// RFC 5321, 4.5.3.1.3: a path has up to 256 octets, two of which are its angle brackets.
const ADDRESS: TextLimit = id(MaxLength::Octets(254));

/// Returns the limit of a mail's mailboxes: at most `most`. Apart from Resend's `to`, no provider documents how many
/// there may be. A server may refuse more than the 100 recipients of RFC 5321 (4.5.3.1.8).
const fn mailboxes(most: usize, smtp: bool) -> ValueLimit {
    ValueLimit::Mailboxes { most, address: ADDRESS, smtp }
}

/// RFC 5322, 2.1.1: a line of a mail has up to 998 octets, here with `Subject: ` before it. A longer subject without
/// spaces could not be folded.
const SUBJECT: ValueLimit = ValueLimit::Text(line(MaxLength::Octets(989)));

/// Additional headers of a mail. Their names follow RFC 5322 (3.6.8), which the connectors check. Their values may be
/// links, so a value that is too long is refused and not cut.
const HEADERS: ValueLimit = ValueLimit::Pairs {
    most: usize::MAX,
    name: TextLimit {
        on_control_chars: OnControlChars::Refuse,
        on_too_long: OnTooLong::Refuse,
        max_length: MaxLength::Octets(76),
        alphabet: Alphabet::Header,
    },
    ours: None,
    value: TextLimit {
        on_control_chars: OnControlChars::Fold,
        on_too_long: OnTooLong::Refuse,
        max_length: MaxLength::Octets(920),
        alphabet: Alphabet::Any,
    },
    identity: None,
};

/// Resend's OpenAPI document (`Tag`): names and values are ASCII letters, digits, `_` and `-`, up to 256 characters.
const TAG: TextLimit = TextLimit {
    on_control_chars: OnControlChars::Fold,
    on_too_long: OnTooLong::Cut,
    max_length: MaxLength::Characters(256),
    alphabet: Alphabet::Label,
};

/// Properties of a contact. resend.com/docs/dashboard/contacts/properties: the key is alphanumeric with underscores, of
/// up to 50 characters; no limit of a value is documented.
const PROPERTIES: ValueLimit = ValueLimit::Pairs {
    most: usize::MAX,
    name: TextLimit { alphabet: Alphabet::Word, ..id(MaxLength::Characters(50)) },
    ours: None,
    value: TextLimit {
        on_control_chars: OnControlChars::Keep,
        on_too_long: OnTooLong::Cut,
        max_length: MaxLength::Unknown,
        alphabet: Alphabet::Any,
    },
    identity: None,
};

/// Returns the limit of Stripe's metadata. docs.stripe.com/metadata: 50 pairs, names of up to 40 characters without
/// brackets, values of up to 500 characters. Usher writes one pair of its own, so 49 remain for the flow.
const fn metadata(most: usize, value: TextLimit, ours: Option<&'static str>) -> ValueLimit {
    let name = TextLimit { alphabet: Alphabet::NoBrackets, ..id(MaxLength::Characters(40)) };
    ValueLimit::Pairs { most, name, ours, value, identity: Some("clerk_user_id") }
}

/// Metadata that are written. A value that is too long is cut, except the id by which customers are found again.
const WRITTEN: ValueLimit = metadata(
    49,
    TextLimit {
        on_control_chars: OnControlChars::Keep,
        on_too_long: OnTooLong::Cut,
        max_length: MaxLength::Characters(500),
        alphabet: Alphabet::Any,
    },
    Some(super::stripe::MARK),
);
/// Metadata that select the customers to update or delete, or whose subscriptions to cancel.
const WANTED: ValueLimit = metadata(50, id(MaxLength::Characters(500)), None);

/// docs.stripe.com/upgrades: Stripe's ids have at most 255 characters.
const STRIPE_ID: ValueLimit = ValueLimit::Text(id(MaxLength::Characters(255)));
const UNLIMITED_ID: ValueLimit = ValueLimit::Text(id(MaxLength::Unknown));
const UNLIMITED_LINE: ValueLimit = ValueLimit::Text(line(MaxLength::Unknown));

/// Limits by connector or `connector.operation`, and by parameter.
const LIMITS: &[(&str, &str, ValueLimit)] = &[
    // Resend's OpenAPI document: up to 50 addresses in `to`. It gives no limit for `cc`, `bcc` and `reply_to`.
    ("resend", "to", mailboxes(50, false)),
    ("resend", "cc", mailboxes(50, false)),
    ("resend", "bcc", mailboxes(50, false)),
    ("resend", "hosted_template", UNLIMITED_ID),
    // The connector checks these.
    ("resend", "attachments", ValueLimit::Any),
    ("resend", "variables", ValueLimit::Any),
    ("resend", "scheduled_at", ValueLimit::Any),
    ("resend", "subject", SUBJECT),
    ("resend", "from", mailboxes(1, false)),
    ("resend", "reply_to", mailboxes(50, false)),
    ("resend", "html", ValueLimit::Any),
    ("resend", "text", ValueLimit::Any),
    ("resend", "headers", HEADERS),
    (
        "resend",
        "tags",
        ValueLimit::Pairs {
            most: usize::MAX,
            name: TextLimit { on_too_long: OnTooLong::Refuse, ..TAG },
            ours: None,
            value: TAG,
            identity: Some("clerk_user_id"),
        },
    ),
    ("resend", "email", ValueLimit::Mailboxes { most: 1, address: ADDRESS, smtp: false }),
    ("resend", "former_email", ValueLimit::Mailboxes { most: 1, address: ADDRESS, smtp: false }),
    ("resend", "first_name", UNLIMITED_LINE),
    ("resend", "last_name", UNLIMITED_LINE),
    ("resend", "unsubscribed", ValueLimit::Any),
    ("resend", "segments", UNLIMITED_ID),
    // The connector checks the values: it knows two.
    ("resend", "topics", ValueLimit::Any),
    ("resend", "properties", PROPERTIES),
    ("smtp", "to", mailboxes(100, true)),
    ("smtp", "cc", mailboxes(100, true)),
    ("smtp", "bcc", mailboxes(100, true)),
    ("smtp", "subject", SUBJECT),
    ("smtp", "from", mailboxes(1, true)),
    ("smtp", "reply_to", mailboxes(100, true)),
    ("smtp", "html", ValueLimit::Any),
    ("smtp", "text", ValueLimit::Any),
    ("smtp", "headers", HEADERS),
    ("nylas", "to", mailboxes(100, false)),
    ("nylas", "cc", mailboxes(100, false)),
    ("nylas", "bcc", mailboxes(100, false)),
    ("nylas", "subject", SUBJECT),
    ("nylas", "from", mailboxes(1, false)),
    ("nylas", "reply_to", mailboxes(100, false)),
    ("nylas", "html", ValueLimit::Any),
    ("nylas", "text", ValueLimit::Any),
    ("nylas", "headers", HEADERS),
    // Stripe's OpenAPI document: `maxLength` of email 512, name 256, phone 20.
    ("stripe", "email", ValueLimit::Mailboxes { most: 1, address: id(MaxLength::Characters(512)), smtp: false }),
    ("stripe", "full_name", ValueLimit::Text(line(MaxLength::Characters(256)))),
    ("stripe", "phone", ValueLimit::Phone(id(MaxLength::Characters(20)))),
    ("stripe", "customer", STRIPE_ID),
    ("stripe", "subscription", STRIPE_ID),
    ("stripe", "price", STRIPE_ID),
    // docs.stripe.com/billing/subscriptions/trials: up to 730 days. 0 would mean no trial, so it is refused.
    ("stripe", "trial_days", ValueLimit::Number(1, 730)),
    ("stripe.create_customer", "metadata", WRITTEN),
    ("stripe.update_customer", "metadata", WRITTEN),
    ("stripe.create_subscription", "metadata", WRITTEN),
    ("stripe", "metadata", WANTED),
    ("stripe", "found_by", WANTED),
    // The receivers have rules of their own. What HTTP and addresses allow is checked by the connector.
    ("http", "", ValueLimit::Any),
    // The connector checks its own rules.
    ("mailchimp", "", ValueLimit::Any),
    // Clerk documents no length of its ids, and 8 KB for each metadata field, which the connector checks.
    ("clerk", "user_id", UNLIMITED_ID),
    ("clerk", "organization_id", UNLIMITED_ID),
    ("clerk", "public", ValueLimit::Any),
    ("clerk", "private", ValueLimit::Any),
    ("clerk", "unsafe", ValueLimit::Any),
    // Novu documents no lengths, only 512 KiB for the whole request, which the connector checks.
    ("novu", "workflow", UNLIMITED_ID),
    ("novu", "subscriber_id", UNLIMITED_ID),
    ("novu", "email", ValueLimit::Mailboxes { most: 1, address: ADDRESS, smtp: false }),
    ("novu", "phone", ValueLimit::Phone(id(MaxLength::Unknown))),
    ("novu", "first_name", UNLIMITED_LINE),
    ("novu", "last_name", UNLIMITED_LINE),
    ("novu", "locale", UNLIMITED_ID),
    ("novu", "timezone", UNLIMITED_ID),
    // The connector checks the values: texts, numbers, lists of texts.
    ("novu", "data", ValueLimit::Any),
    ("novu", "payload", ValueLimit::Any),
    // Algolia limits the size of a record by the plan, and reports a record that is too large.
    ("algolia", "object_id", UNLIMITED_ID),
    ("algolia", "index", UNLIMITED_ID),
    ("algolia", "fields", ValueLimit::Any),
];

/// Returns the limit of a parameter, or `None` if the table has no entry for it.
pub(super) fn limit(connector: &str, operation: &str, param: &str) -> Option<ValueLimit> {
    let whole = format!("{connector}.{operation}");
    let of = |wanted: &str, all: &str| {
        LIMITS.iter().find(|(whose, name, _)| *whose == wanted && *name == all).map(|(.., limit)| *limit)
    };
    of(&whole, param).or_else(|| of(connector, param)).or_else(|| of(connector, ""))
}

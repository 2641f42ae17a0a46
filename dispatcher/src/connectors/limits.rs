//! Values that each destination takes for each parameter: one table for all of them. [`fit`](super::fit) holds every
//! value to it before a connector sees it, so that decoration (a subject, a name) never costs the effect, and an
//! identity is never changed. Facts have their source beside them; where a provider documents nothing, nothing is cut.

use super::fit::{Alphabet, Ends, Long, Longest, TextLimit};

/// The values that a destination takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueLimit {
    /// Nothing is known to be refused, or the connector itself checks it: paths, addresses of the web, whole documents.
    Any,
    /// A text.
    Text(TextLimit),
    /// A phone number. One of Clerk's for tests is left out.
    Phone(TextLimit),
    /// Mailboxes.
    Mailboxes {
        /// Largest number of entries.
        most: usize,
        /// Form of the address.
        address: TextLimit,
        /// True if the local part is written as SMTP has it.
        smtp: bool,
    },
    /// A whole number, from the first to the second.
    Number(u64, u64),
    /// Pairs of a name, which stands in the flow's file, and a text.
    Pairs {
        /// Largest number of entries.
        most: usize,
        /// The names.
        name: TextLimit,
        /// A name that is Usher's own.
        ours: Option<&'static str>,
        /// The texts.
        value: TextLimit,
        /// A name whose text says who is meant: it is never changed.
        identity: Option<&'static str>,
    },
}

/// Words for people, in one line.
const fn line(longest: Longest) -> TextLimit {
    TextLimit { ends: Ends::Fold, long: Long::Cut, longest, alphabet: Alphabet::Any }
}

/// A text that names something: taken as it is, or refused.
const fn id(longest: Longest) -> TextLimit {
    TextLimit { ends: Ends::Refuse, long: Long::Refuse, longest, alphabet: Alphabet::Any }
}

/// RFC 5321, 4.5.3.1.3: a path has up to 256 octets, two of which are its angle brackets.
const ADDRESS: TextLimit = id(Longest::Octets(254));

/// Mailboxes of a mail. No provider of these documents how many names may stand there; beyond RFC 5321's hundred
/// recipients (4.5.3.1.8) a server may refuse.
const fn mailboxes(most: usize, smtp: bool) -> ValueLimit {
    ValueLimit::Mailboxes { most, address: ADDRESS, smtp }
}

/// RFC 5322, 2.1.1: a line of a mail has up to 998 octets, here with `Subject: ` before it. A longer subject without
/// spaces could not be folded.
const SUBJECT: ValueLimit = ValueLimit::Text(line(Longest::Octets(989)));

/// A mail's further headers. Their names are RFC 5322's (3.6.8), which the connectors check; their values may be links,
/// so they are refused rather than cut.
const HEADERS: ValueLimit = ValueLimit::Pairs {
    most: usize::MAX,
    name: TextLimit {
        ends: Ends::Refuse,
        long: Long::Refuse,
        longest: Longest::Octets(76),
        alphabet: Alphabet::Header,
    },
    ours: None,
    value: TextLimit { ends: Ends::Fold, long: Long::Refuse, longest: Longest::Octets(920), alphabet: Alphabet::Any },
    identity: None,
};

/// Resend's OpenAPI document (`Tag`): names and values are ASCII letters, digits, `_` and `-`, up to 256 characters.
const TAG: TextLimit =
    TextLimit { ends: Ends::Fold, long: Long::Cut, longest: Longest::Characters(256), alphabet: Alphabet::Label };

/// docs.stripe.com/metadata: 50 pairs, names of up to 40 characters without brackets, values of up to 500. One pair is
/// Usher's own, so 49 are left.
const fn metadata(most: usize, value: TextLimit, ours: Option<&'static str>) -> ValueLimit {
    let name = TextLimit { alphabet: Alphabet::NoBrackets, ..id(Longest::Characters(40)) };
    ValueLimit::Pairs { most, name, ours, value, identity: Some("clerk_user_id") }
}

/// Metadata that are written: a value that is too long is cut, but for the id by which customers are found again.
const WRITTEN: ValueLimit = metadata(
    49,
    TextLimit { ends: Ends::Keep, long: Long::Cut, longest: Longest::Characters(500), alphabet: Alphabet::Any },
    Some(super::stripe::MARK),
);
/// Metadata that say whose things are to go.
const WANTED: ValueLimit = metadata(50, id(Longest::Characters(500)), None);

/// docs.stripe.com/upgrades: no id of Stripe's is longer.
const STRIPE_ID: ValueLimit = ValueLimit::Text(id(Longest::Characters(255)));
const UNLIMITED_ID: ValueLimit = ValueLimit::Text(id(Longest::Unknown));
const UNLIMITED_LINE: ValueLimit = ValueLimit::Text(line(Longest::Unknown));

/// By connector, or connector and operation, and parameter.
const LIMITS: &[(&str, &str, ValueLimit)] = &[
    // Resend's OpenAPI document: up to 50 in `to`. It does not say for `reply_to`.
    ("resend", "to", mailboxes(50, false)),
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
            name: TextLimit { long: Long::Refuse, ..TAG },
            ours: None,
            value: TAG,
            identity: Some("clerk_user_id"),
        },
    ),
    ("smtp", "to", mailboxes(100, true)),
    ("smtp", "subject", SUBJECT),
    ("smtp", "from", mailboxes(1, true)),
    ("smtp", "reply_to", mailboxes(100, true)),
    ("smtp", "html", ValueLimit::Any),
    ("smtp", "text", ValueLimit::Any),
    ("smtp", "headers", HEADERS),
    ("nylas", "to", mailboxes(100, false)),
    ("nylas", "subject", SUBJECT),
    ("nylas", "from", mailboxes(1, false)),
    ("nylas", "reply_to", mailboxes(100, false)),
    ("nylas", "html", ValueLimit::Any),
    ("nylas", "text", ValueLimit::Any),
    ("nylas", "headers", HEADERS),
    // Stripe's OpenAPI document: `maxLength` of email 512, name 256, phone 20.
    ("stripe", "email", ValueLimit::Mailboxes { most: 1, address: id(Longest::Characters(512)), smtp: false }),
    ("stripe", "full_name", ValueLimit::Text(line(Longest::Characters(256)))),
    ("stripe", "phone", ValueLimit::Phone(id(Longest::Characters(20)))),
    ("stripe", "customer", STRIPE_ID),
    ("stripe", "subscription", STRIPE_ID),
    ("stripe", "price", STRIPE_ID),
    // docs.stripe.com/billing/subscriptions/trials: up to 730 days; 0 is no trial, and refused as one.
    ("stripe", "trial_days", ValueLimit::Number(1, 730)),
    ("stripe.create_customer", "metadata", WRITTEN),
    ("stripe.create_subscription", "metadata", WRITTEN),
    ("stripe", "metadata", WANTED),
    ("http", "url", ValueLimit::Any),
    ("http", "body", ValueLimit::Any),
    ("http", "secret", ValueLimit::Any),
    // The connector has its own rules.
    ("mailchimp", "", ValueLimit::Any),
    // Novu documents no lengths, only 512 KiB for the whole request, which the connector checks.
    ("novu", "workflow", UNLIMITED_ID),
    ("novu", "subscriber_id", UNLIMITED_ID),
    ("novu", "email", ValueLimit::Mailboxes { most: 1, address: ADDRESS, smtp: false }),
    ("novu", "phone", ValueLimit::Phone(id(Longest::Unknown))),
    ("novu", "first_name", UNLIMITED_LINE),
    ("novu", "last_name", UNLIMITED_LINE),
    ("novu", "payload", ValueLimit::Any),
    // Algolia bounds a record by the plan, and says so itself.
    ("algolia", "object_id", UNLIMITED_ID),
    ("algolia", "index", UNLIMITED_ID),
    ("algolia", "fields", ValueLimit::Any),
];

/// The values that the destination takes for this parameter; none where the table has no word about it.
pub(super) fn limit(connector: &str, operation: &str, param: &str) -> Option<ValueLimit> {
    let whole = format!("{connector}.{operation}");
    let of = |wanted: &str, all: &str| {
        LIMITS.iter().find(|(whose, name, _)| *whose == wanted && *name == all).map(|(.., limit)| *limit)
    };
    of(&whole, param).or_else(|| of(connector, param)).or_else(|| of(connector, ""))
}

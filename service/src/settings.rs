//! All settings of all programs, by name. A variable that looks like a setting but is not one of them is refused,
//! because it was probably meant as a setting.
//!
//! [`Environment`] reads no name that is not listed here, and a test ensures that every listed name is read.

mod sender;
mod shape;

use Extent::{Instances, Named, Process, Senders};
pub use sender::{InvalidSenderSetting, SenderDetail, SenderSetting};
use usher_proto::Instance;
use usher_proto::source::SENDER_SETTINGS;

use crate::ConfigError;
use crate::options::Environment;

/// Additional names of a setting, besides its own and `<NAME>_FILE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// No additional names.
    Process,
    /// `<NAME>_<INSTANCE>`.
    Instances,
    /// `<NAME>_<any name>`, and the same with the suffix of an instance.
    Named,
    /// `<NAME>_<a sender's name>_<what>`, and no setting of this name alone: see [`SenderSetting`].
    Senders,
}

/// All settings, with their additional names.
const SETTINGS: &[(&str, Extent)] = &[
    ("USHER_ADMIN", Process),
    ("USHER_ATTACHMENTS", Process),
    ("USHER_CONSOLE_BASE_PATH", Process),
    ("USHER_CONSOLE_HOSTS", Process),
    ("USHER_CONSOLE_NAME", Process),
    ("USHER_CONSOLE_OPERATORS", Process),
    ("USHER_CONSOLE_READ_TOKEN", Process),
    ("USHER_CONSOLE_TOKEN", Process),
    ("USHER_CONSOLE_USER_HEADER", Process),
    ("USHER_DATA", Process),
    ("USHER_DELIVER_ONLY_TO", Process),
    ("USHER_FLOW", Process),
    ("USHER_FLOWS", Process),
    ("USHER_FROM", Instances),
    ("USHER_LAB", Process),
    ("USHER_LAB_KEEP", Process),
    ("USHER_LAB_SMTP", Process),
    ("USHER_LISTEN", Process),
    ("USHER_LOG", Process),
    ("USHER_LOG_FORMAT", Process),
    ("USHER_OTLP_ENDPOINT", Process),
    ("USHER_PARTITIONS", Process),
    ("USHER_PUBLIC_URL", Process),
    ("USHER_REPLIES_TO", Instances),
    ("USHER_RUN_RETENTION", Process),
    ("USHER_SOURCE", Senders),
    ("USHER_STORE", Process),
    ("USHER_STORE_SCHEMA", Process),
    ("USHER_TOPIC_PREFIX", Process),
    ("USHER_UNSUBSCRIBE_SECRET", Process),
    ("RUST_LOG", Process),
    ("CLERK_WEBHOOK_SIGNING_SECRET", Instances),
    ("RESEND_WEBHOOK_SECRET", Instances),
    ("STRIPE_WEBHOOK_SECRET", Instances),
    ("NYLAS_WEBHOOK_SECRET", Instances),
    ("CLERK_SECRET_KEY", Instances),
    ("CLERK_BASE_URL", Instances),
    ("CLERK_QUOTA", Instances),
    ("RESEND_API_KEY", Instances),
    ("RESEND_BASE_URL", Instances),
    ("RESEND_QUOTA", Instances),
    ("SMTP_URL", Instances),
    ("SMTP_QUOTA", Instances),
    ("STRIPE_SECRET_KEY", Instances),
    ("STRIPE_PRICE_ID", Instances),
    ("STRIPE_BASE_URL", Instances),
    ("STRIPE_QUOTA", Instances),
    ("DATABASE_URL", Instances),
    ("DATABASE_SCHEMA", Instances),
    ("DATABASE_QUOTA", Instances),
    ("HTTP_SIGNING_SECRET", Named),
    ("HTTP_ALLOW_PLAIN", Instances),
    ("HTTP_BASE_URL", Instances),
    ("HTTP_QUOTA", Instances),
    ("MAILCHIMP_API_KEY", Instances),
    ("MAILCHIMP_LIST_ID", Instances),
    ("MAILCHIMP_BASE_URL", Instances),
    ("MAILCHIMP_QUOTA", Instances),
    ("NOVU_SECRET_KEY", Instances),
    ("NOVU_BASE_URL", Instances),
    ("NOVU_QUOTA", Instances),
    ("ALGOLIA_APP_ID", Instances),
    ("ALGOLIA_API_KEY", Instances),
    ("ALGOLIA_INDEX", Instances),
    ("ALGOLIA_BASE_URL", Instances),
    ("ALGOLIA_QUOTA", Instances),
    ("NYLAS_API_KEY", Instances),
    ("NYLAS_GRANT_ID", Instances),
    ("NYLAS_BASE_URL", Instances),
    ("NYLAS_QUOTA", Instances),
];

/// Prefixes of names that librdkafka and Usher's own tests read.
const OPEN: &[&str] =
    &["USHER_KAFKA_", "USHER_TEST_", "USHER_CHAOS", "USHER_QUOTA_MAILS", "USHER_SIGNUPS", "USHER_BACKLOG"];

/// Prefixes that are used only by Usher or by the destinations for which an environment of Usher is made. An unknown
/// name with such a prefix is a mistake.
const OURS: &[&str] =
    &["USHER_", "CLERK_WEBHOOK_", "RESEND_", "SMTP_", "STRIPE_", "MAILCHIMP_", "NOVU_", "ALGOLIA_", "NYLAS_"];
/// Prefixes that other programs may use too (`HTTP_PROXY`, `DATABASE_HOST`, `CLERK_JWT_KEY`). Such a name is a
/// mistake only if it is very similar to a setting.
const SHARED: &[&str] = &["HTTP_", "DATABASE_", "CLERK_"];
/// Names that other programs use for the same settings.
const ELSEWHERE: &[(&str, &str)] = &[
    ("CLERK_SIGNING_SECRET", "CLERK_WEBHOOK_SIGNING_SECRET"),
    ("NOVU_API_KEY", "NOVU_SECRET_KEY"),
    ("RESEND_FROM", "USHER_FROM"),
    ("SMTP_FROM", "USHER_FROM"),
    ("SMTP_HOST", "SMTP_URL"),
    ("STRIPE_API_KEY", "STRIPE_SECRET_KEY"),
    ("STRIPE_KEY", "STRIPE_SECRET_KEY"),
];
/// Minimum similarity, from 0 to 1, at which a name with a shared prefix is taken for a misspelt setting.
const NEARLY: f64 = 0.94;
/// Minimum similarity, from 0 to 1, at which a setting is suggested.
const ALIKE: f64 = 0.8;
/// Maximum length of the name of a secret, in characters.
const LONGEST_SECRET_NAME: usize = 64;

/// Settings that flow files may name. They hold no secret.
pub const OPEN_TO_FLOWS: [&str; 2] = ["USHER_FROM", "USHER_REPLIES_TO"];

/// True if this name belongs to a setting that is not open to flow files.
pub fn is_for_itself(name: &str) -> bool {
    let own = setting(plain(name)).is_some_and(|setting| !OPEN_TO_FLOWS.contains(&setting));
    own || OPEN.iter().any(|prefix| name.starts_with(prefix))
}

/// True if a program reads this name.
pub(crate) fn is_known(name: &str) -> bool {
    setting(name).is_some() || OPEN.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the setting to which a name belongs: the setting of that name, or that of one of its additional names.
fn setting(name: &str) -> Option<&'static str> {
    let stands_for = |(known, extent): &&(&str, Extent)| {
        let Some(rest) = name.strip_prefix(known) else { return false };
        if rest.is_empty() {
            return *extent != Senders;
        }
        let Some(suffix) = rest.strip_prefix('_') else { return false };
        match extent {
            Process => false,
            Named => !suffix.is_empty(),
            Senders => SenderSetting::parse(name).is_ok(),
            Instances => suffix.to_lowercase().replace('_', "-").parse::<Instance>().is_ok(),
        }
    };
    SETTINGS.iter().filter(stands_for).map(|(known, _)| *known).max_by_key(|known| known.len())
}

/// Removes the suffix `_FILE`, which marks the path of a file.
fn plain(name: &str) -> &str {
    name.strip_suffix("_FILE").unwrap_or(name)
}

/// Checks that a flow may name a variable as a secret. Usher's own settings are not available to flows: whoever writes
/// flow files could otherwise send the key of one destination to another.
///
/// # Errors
///
/// The name is not a name of variables that operators choose. The text says the reason, without the name.
pub fn check_secret_name(name: &str) -> Result<(), String> {
    let letter = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
    if !begins || !name.bytes().all(letter) || name.len() > LONGEST_SECRET_NAME {
        return Err("a secret has the name of a variable: A-Z, 0-9 and _, beginning with a letter".into());
    }
    if let Some(variable) = name.strip_suffix("_FILE") {
        return Err(format!("name {variable}: its value may be in the file that {name} names"));
    }
    let prefix = OURS.iter().find(|prefix| name.starts_with(**prefix));
    match (setting(name), prefix) {
        (Some(_), _) => {
            Err("it is a setting of Usher's own, which flows cannot read: give the secret another name".into())
        }
        (None, Some(prefix)) => {
            Err(format!("names that begin with {prefix} are settings of Usher's own: give the secret another name"))
        }
        (None, None) if problem(name).is_some() => {
            Err("it looks like a misspelt setting of Usher's own: give the secret another name".into())
        }
        (None, None) => Ok(()),
    }
}

/// Refuses variables whose name is very similar to a setting, or whose prefix is used only by Usher.
///
/// # Errors
///
/// There are such variables. The error lists each, with the setting that may be meant. It does not repeat values.
pub fn refuse_unknown(environment: &Environment) -> Result<(), ConfigError> {
    let unknown = environment.filled().filter(|(name, value)| !is_service_link(name, value));
    let problems: Vec<String> = unknown.filter_map(|(name, _)| problem(name)).collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems.join("\n"))) }
}

/// Returns the name of a variable that is not a setting and whose value looks like a signing secret. `None` if there is
/// none. The value is not returned.
pub fn named_otherwise(environment: &Environment) -> Option<String> {
    let looks_like_it = |(name, value): &(&str, &str)| setting(plain(name)).is_none() && value.starts_with("whsec_");
    environment.filled().find(looks_like_it).map(|(name, _)| name.to_owned())
}

/// Refuses values that no setting of their kind can have: values in quotes, and keys of another service.
///
/// # Errors
///
/// The first such setting, or a file of a setting that cannot be read. The error does not repeat the value.
pub fn check_values(environment: &Environment) -> Result<(), ConfigError> {
    for (name, _) in environment.filled() {
        let name = plain(name);
        // What other programs name is not read: it may be missing, a secret, or without an end.
        let Some(setting) = setting(name) else { continue };
        if let Some(value) = environment.value(name)? {
            shape::check(setting, &value).map_err(|why| ConfigError::new(name, why))?;
        }
    }
    Ok(())
}

fn problem(name: &str) -> Option<String> {
    let plain = plain(name);
    if is_known(plain) || is_known(name) {
        return None;
    }
    let begins_as = |prefixes: &[&str]| prefixes.iter().any(|prefix| plain.starts_with(prefix));
    if !begins_as(OURS) && !begins_as(SHARED) {
        return None;
    }
    // A misspelt name may be followed by the name of an instance.
    let alike = |known: &str| {
        let head = plain.char_indices().map(|(at, _)| &plain[..at]).filter(|head| head.len() + 1 >= known.len());
        let heads = head.filter(|head| plain[head.len()..].starts_with('_')).chain([plain]);
        heads.map(|head| likeness(head, known)).fold(0.0, f64::max)
    };
    let names = SETTINGS.iter().map(|(known, _)| (*known, alike(known)));
    let nearest = names.max_by(|(_, a), (_, b)| a.total_cmp(b)).filter(|(_, alike)| *alike >= ALIKE);
    if plain.starts_with(SENDER_SETTINGS)
        && let Err(error) = SenderSetting::parse(plain)
    {
        return Some(format!("{name}: there is no such setting; {error}"));
    }
    let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == plain).map(|(_, known)| *known);
    if elsewhere.is_none() && !begins_as(OURS) && nearest.is_none_or(|(_, alike)| alike < NEARLY) {
        return None;
    }
    let meant = elsewhere.or(nearest.map(|(known, _)| known));
    let meant = meant.map_or_else(
        || "docs/configuration.md lists all there are".to_owned(),
        |known| format!("did you mean {known}?"),
    );
    Some(format!("{name}: there is no such setting; {meant}"))
}

/// Returns the similarity of two names, from 0 to 1. A common first word (`USHER_`) does not count.
fn likeness(name: &str, known: &str) -> f64 {
    let tails = name.split_once('_').zip(known.split_once('_'));
    let tails = tails.filter(|((a, _), (b, _))| a == b).map(|((_, a), (_, b))| (a, b));
    let (name, known) = tails.unwrap_or((name, known));
    strsim::jaro_winkler(name, known)
}

/// True for variables that Kubernetes sets in every container for each service of the namespace, named after the
/// service (`USHER_INGEST_SERVICE_HOST`, `USHER_INGEST_PORT_8080_TCP_ADDR`). No operator wrote them.
fn is_service_link(name: &str, value: &str) -> bool {
    let port = name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port || (name.ends_with("_PORT") && address)
}

#[cfg(test)]
mod tests;

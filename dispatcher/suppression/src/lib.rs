//! Suppression of recipients. This module only decides and does no I/O: the suppression list entries that the store
//! holds are passed in as a parameter.
//!
//! An operation declares which of its parameters are people's addresses (`Operation::writes_to`). The decisions made
//! here therefore apply to every connector, including connectors that are added later.

mod allowlist;
mod change;
mod kept;
mod links;
#[cfg(test)]
mod properties;
mod recipients;

pub use allowlist::RecipientAllowlist;
pub use change::suppression_change;
pub use kept::{keep, kept};
pub use links::Links;
pub use recipients::{InvalidRecipient, drop_suppressed, drop_test_numbers, recipients};
use usher_clerk::test_recipients;
use usher_engine::SkipReason;
use usher_proto::AddressDigest;
use usher_proto::suppression::{ALL_LISTS, SuppressionEntry};
use usher_service::ConfigError;
use usher_service::options::Environment;

/// The configured suppression rules.
#[derive(Debug, Clone, Default)]
pub struct SuppressionPolicy {
    /// The only addresses that may be written to; allows every address by default.
    pub allowlist: RecipientAllowlist,
    /// Builds the unsubscribe links of marketing mail. Absent if neither of its settings is given.
    pub links: Option<Links>,
}

impl SuppressionPolicy {
    /// Reads the settings. `marketing` are the flow and the step of a marketing mail, if there is any: it requires the
    /// settings of the unsubscribe links.
    ///
    /// # Errors
    ///
    /// A setting cannot be read or is invalid, or there is marketing mail and the settings of the unsubscribe links are
    /// missing.
    pub fn from_environment(environment: &Environment, marketing: Option<(&str, &str)>) -> Result<Self, ConfigError> {
        let suppression = Self {
            allowlist: RecipientAllowlist::from_environment(environment)?,
            links: Links::from_environment(environment)?,
        };
        match marketing {
            Some((flow, step)) if suppression.links.is_none() => Err(Links::missing(flow, step)),
            _ => Ok(suppression),
        }
    }
}

/// The suppression rules that apply to one step.
pub struct Rules<'a> {
    /// The only addresses that may be written to.
    pub allowlist: &'a RecipientAllowlist,
    /// The store's suppression list entries for the step's addresses: those for all mail and those for the step's list.
    pub listed: Vec<SuppressionEntry>,
}

impl Rules<'_> {
    /// Returns the reason why an address must not be written to; `None` if it may be.
    pub fn held(&self, address: &str) -> Option<SkipReason> {
        if test_recipients::is_test_address(address) || !self.allowlist.allows(address) {
            return Some(SkipReason::HeldBack);
        }
        let digest = AddressDigest::of(address);
        let mut listed = self.listed.iter().filter(|listed| listed.address == digest).peekable();
        listed.peek()?;
        Some(if listed.any(|listed| listed.scope == ALL_LISTS) {
            SkipReason::Suppressed
        } else {
            SkipReason::Unsubscribed
        })
    }

    /// Returns the reason to skip a step whose recipients are unknown, for example a workflow that looks up
    /// its subscriber itself. If an allowlist is configured, such a step is skipped, because its recipient
    /// cannot be checked.
    pub fn held_unseen(&self) -> Option<SkipReason> {
        self.allowlist.is_given().then_some(SkipReason::HeldBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn allowlist(text: &str) -> RecipientAllowlist {
        RecipientAllowlist::from_environment(&Environment::from_vars([("USHER_DELIVER_ONLY_TO", text)]))
            .expect("good patterns")
    }

    #[test]
    fn each_reason_has_its_word_and_the_strongest_counts() {
        let all = allowlist("");
        let some = allowlist("*@work.test");
        let listed = |address: &str, scope: &str| SuppressionEntry {
            address: AddressDigest::of(address),
            scope: scope.to_owned(),
        };
        let known = vec![
            listed("gone@work.test", ALL_LISTS),
            listed("out@work.test", "news"),
            listed("both@work.test", "news"),
            listed("both@work.test", ALL_LISTS),
            listed("else@elsewhere.test", ALL_LISTS),
            listed("gone@m\u{fc}nchen.test", ALL_LISTS),
        ];
        let rules = |allowlist| Rules { allowlist, listed: known.clone() };
        for (address, expected) in [
            ("dana@work.test", None),
            ("Dana+clerk_test@work.test", Some(SkipReason::HeldBack)),
            ("dana+CLERK_TEST@work.test", Some(SkipReason::HeldBack)),
            ("dana+clerk_test_7@work.test", Some(SkipReason::HeldBack)),
            ("gone@xn--mnchen-3ya.test", Some(SkipReason::Suppressed)),
            ("\"gone\"@M\u{fc}nchen.test", Some(SkipReason::Suppressed)),
            ("clerk_test@work.test", None),
            ("Gone@Work.test", Some(SkipReason::Suppressed)),
            ("out@work.test", Some(SkipReason::Unsubscribed)),
            ("both@work.test", Some(SkipReason::Suppressed)),
            ("else@elsewhere.test", Some(SkipReason::Suppressed)),
        ] {
            assert_eq!(rules(&all).held(address), expected, "{address}");
        }
        assert_eq!(rules(&some).held("else@elsewhere.test"), Some(SkipReason::HeldBack));
        assert_eq!(rules(&some).held("dana@work.test"), None);
        assert_eq!((rules(&all).held_unseen(), rules(&some).held_unseen()), (None, Some(SkipReason::HeldBack)));
    }

    #[test]
    fn a_flow_with_marketing_mail_cannot_start_without_its_links() {
        let read = |environment| SuppressionPolicy::from_environment(&environment, Some(("email", "welcome")));
        let error = read(Environment::from_vars([])).expect_err("two variables are missing").to_string();
        assert!(error.starts_with("USHER_UNSUBSCRIBE_SECRET: not set, and step welcome of flow email"), "{error}");
        let set = [("USHER_UNSUBSCRIBE_SECRET", SECRET), ("USHER_PUBLIC_URL", "https://acme.test")];
        assert!(read(Environment::from_vars(set)).expect("both are set").links.is_some());
    }
}

//! Whom not to write to. Decides and asks nobody: what the store knows of addresses is a parameter.
//!
//! An operation says which of its parameters are people's addresses (`Operation::writes_to`), so that what is decided here
//! holds for every connector, also for one that is added later.

mod clerk_tests;
mod kept;
mod links;
mod only_to;
mod recipients;
mod said;

use usher_proto::AddressDigest;
use usher_proto::reach::EVERYTHING;
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use crate::engine::Held;
use crate::flows::{Action, Flow};
pub(crate) use kept::{keep, kept};
pub use links::Links;
pub use only_to::OnlyTo;
pub(crate) use recipients::{leave_out, leave_out_test_numbers, recipients};
pub(crate) use said::said;

/// What is configured about whom to write to.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Who may be written to at all.
    pub only_to: OnlyTo,
    /// Makes the links that end marketing mail.
    pub links: Option<Links>,
}

impl Reach {
    /// Reads the settings. Flows with marketing mail need those of its links.
    pub fn from_environment(environment: &Environment, flows: &[Flow]) -> Result<Self, BadSetting> {
        let reach =
            Self { only_to: OnlyTo::from_environment(environment)?, links: Links::from_environment(environment)? };
        for flow in flows {
            let marketing = |action: &Action| matches!(action, Action::Call(call) if call.marketing.is_some());
            let step = flow.steps.iter().find(|step| marketing(&step.action));
            if let Some(step) = step.filter(|_| reach.links.is_none()) {
                return Err(Links::missing(&flow.name, &step.name));
            }
        }
        Ok(reach)
    }
}

/// That an address is not to be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The address.
    pub address: AddressDigest,
    /// The list, or [`EVERYTHING`].
    pub scope: String,
}

/// What is known where a step is about to write to somebody.
pub(crate) struct Rules<'a> {
    /// Who may be written to at all.
    pub(crate) only_to: &'a OnlyTo,
    /// What the store knows of the addresses, for all mail and for the step's list.
    pub(crate) listed: Vec<Listed>,
}

impl Rules<'_> {
    /// Why an address is not written to; none if it is.
    pub(crate) fn held(&self, address: &str) -> Option<Held> {
        if clerk_tests::is_test_address(address) || !self.only_to.allows(address) {
            return Some(Held::HeldBack);
        }
        let digest = AddressDigest::of(address);
        let mut listed = self.listed.iter().filter(|listed| listed.address == digest).peekable();
        listed.peek()?;
        Some(if listed.any(|listed| listed.scope == EVERYTHING) { Held::Suppressed } else { Held::Unsubscribed })
    }

    /// The same where nothing is known of whom it goes to, as of a workflow that looks its subscriber up by itself: that
    /// cannot be let through where only some may be written to.
    pub(crate) fn held_unseen(&self) -> Option<Held> {
        self.only_to.is_given().then_some(Held::HeldBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::{FlowSource, builtin};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn only_to(text: &str) -> OnlyTo {
        OnlyTo::from_environment(&Environment::of([("USHER_DELIVER_ONLY_TO", text)])).expect("good patterns")
    }

    #[test]
    fn each_reason_has_its_word_and_the_strongest_counts() {
        let (all, some) = (only_to(""), only_to("*@work.test"));
        let listed =
            |address: &str, scope: &str| Listed { address: AddressDigest::of(address), scope: scope.to_owned() };
        let known = vec![
            listed("gone@work.test", EVERYTHING),
            listed("out@work.test", "news"),
            listed("both@work.test", "news"),
            listed("both@work.test", EVERYTHING),
            listed("else@elsewhere.test", EVERYTHING),
            listed("gone@m\u{fc}nchen.test", EVERYTHING),
        ];
        let rules = |only_to| Rules { only_to, listed: known.clone() };
        for (address, expected) in [
            ("dana@work.test", None),
            ("Dana+clerk_test@work.test", Some(Held::HeldBack)),
            ("dana+CLERK_TEST@work.test", Some(Held::HeldBack)),
            ("dana+clerk_test_7@work.test", Some(Held::HeldBack)),
            ("gone@xn--mnchen-3ya.test", Some(Held::Suppressed)),
            ("\"gone\"@M\u{fc}nchen.test", Some(Held::Suppressed)),
            ("clerk_test@work.test", None),
            ("Gone@Work.test", Some(Held::Suppressed)),
            ("out@work.test", Some(Held::Unsubscribed)),
            ("both@work.test", Some(Held::Suppressed)),
            ("else@elsewhere.test", Some(Held::Suppressed)),
        ] {
            assert_eq!(rules(&all).held(address), expected, "{address}");
        }
        assert_eq!(rules(&some).held("else@elsewhere.test"), Some(Held::HeldBack));
        assert_eq!(rules(&some).held("dana@work.test"), None);
        assert_eq!((rules(&all).held_unseen(), rules(&some).held_unseen()), (None, Some(Held::HeldBack)));
    }

    #[test]
    fn a_flow_with_marketing_mail_cannot_start_without_its_links() {
        let source = builtin().remove(0);
        let toml = source.toml.replace("template = \"welcome\"", "marketing = \"news\"\ntemplate = \"welcome\"");
        let flow = Flow::check(FlowSource { toml, ..source }).expect("a good flow");
        let read = |environment| Reach::from_environment(&environment, std::slice::from_ref(&flow));
        let error = read(Environment::of([])).expect_err("two variables are missing").to_string();
        assert!(error.starts_with("USHER_UNSUBSCRIBE_SECRET: not set, and step welcome of flow email"), "{error}");
        let set = [("USHER_UNSUBSCRIBE_SECRET", SECRET), ("USHER_PUBLIC_URL", "https://acme.test")];
        assert!(read(Environment::of(set)).expect("both are set").links.is_some());
    }
}

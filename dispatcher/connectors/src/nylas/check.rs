//! Compares the steps of flows with the mailboxes, at the start.

use std::time::Duration;

use futures::future::join_all;
use usher_service::ConfigError;

use super::{GRANTS, Nylas, mailbox_path};
use crate::{CallGate, StepUse};

/// Time limit for querying a mailbox's address at the start.
const CHECK_DEADLINE: Duration = Duration::from_secs(5);
/// Nylas's name for Microsoft as the provider of a mailbox.
const MICROSOFT: &str = "microsoft";

/// Nylas's description of a mailbox.
pub(super) struct MailboxInfo {
    /// Domain of its address.
    domain: Option<String>,
    pub(super) is_microsoft: bool,
}

impl Nylas {
    /// Compares what the steps send with what the mailboxes may send, as far as Nylas describes them.
    pub(super) async fn check_mailboxes(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        let described = join_all(self.grants.iter().map(|grant| self.describe_mailbox(grant))).await;
        for (grant, _) in
            self.grants.iter().zip(&described).filter(|(_, info)| info.as_ref().is_some_and(|info| info.is_microsoft))
        {
            for (used, header) in uses.iter().filter_map(|used| Some((used, header_without_x(used)?))) {
                let StepUse { flow, step, .. } = used;
                tracing::warn!(
                    grant,
                    flow,
                    step,
                    header,
                    "this mailbox is Microsoft's, which may refuse or drop headers that do not begin with x-"
                );
            }
        }
        let mailboxes = self.grants.iter().zip(described).filter_map(|(grant, info)| Some((grant, info?.domain?)));
        for (grant, mailbox) in mailboxes {
            // Without a `from`, the mail is sent as its mailbox.
            for (used, from) in uses.iter().filter_map(|used| Some((used, domain_of(used.text("from")?)?))) {
                if from != mailbox {
                    let why = format!(
                        "it is of {from}, but the mailbox {grant} is of {mailbox} and can only send as that: write an \
                         address of {mailbox}, leave it out, or let {GRANTS} name mailboxes of {from} only"
                    );
                    return Err(used.wrong("from", &why));
                }
            }
        }
        Ok(())
    }

    /// Returns Nylas's description of a mailbox, or `None` if Nylas did not describe it. `None` is not an error: Nylas
    /// may be out of order, and one mailbox that has to be connected again must not stop the others or other flows.
    pub(super) async fn describe_mailbox(&self, grant: &str) -> Option<MailboxInfo> {
        match self.ask(mailbox_path(grant), CHECK_DEADLINE, &CallGate::open()).await {
            Ok(answer) if answer.status.is_success() => {
                let data = &answer.json()["data"];
                let domain = data["email"].as_str().and_then(domain_of);
                Some(MailboxInfo { domain, is_microsoft: data["provider"] == MICROSOFT })
            }
            Ok(answer) => {
                let error = answer.error(answer.json()["error"]["type"].as_str());
                tracing::warn!(
                    grant,
                    error,
                    "mailbox not checked: Nylas refused the query; mails from it may be refused"
                );
                None
            }
            Err(_) => {
                tracing::warn!(grant, "mailbox not checked: Nylas does not answer");
                None
            }
        }
    }
}

/// Returns a header of a step that a Microsoft mailbox may not send: learn.microsoft.com (message resource,
/// `internetMessageHeaders`) demands names that begin with `x-`. It is not confirmed that this applies to mails sent
/// through Nylas.
pub(super) fn header_without_x<'a>(used: &'a StepUse<'_>) -> Option<&'a str> {
    let headers = used.params.get("headers")?.as_object()?;
    let is_own = |name: &str| name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
    headers.keys().map(String::as_str).find(|name| !is_own(name))
}

/// Returns the domain of an address, in lower case, or `None` if a template leaves it to the event.
fn domain_of(text: &str) -> Option<String> {
    let (_, rest) = text.trim().rsplit_once('@')?;
    let domain = rest.strip_suffix('>').unwrap_or(rest);
    let literal = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
    (!domain.is_empty() && domain.chars().all(literal)).then(|| domain.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_known_before_the_event_unless_a_template_makes_it() {
        for text in ["h@Acme.test", "Acme <h@acme.test>", " {{ user.name }} <{{ user.id }}@acme.test> "] {
            assert_eq!(domain_of(text).as_deref(), Some("acme.test"), "{text}");
        }
        for text in ["acme.test", "h@", "h@{{ user.domain }}", "{% if user.id %}h@acme.test{% endif %}"] {
            assert_eq!(domain_of(text), None, "{text}");
        }
    }
}

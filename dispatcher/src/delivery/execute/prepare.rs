//! Builds the exact request of a step, or returns the reason why nothing is sent. The recipients are checked before
//! each attempt, including repeats of a stored request. A recipient who has unsubscribed meanwhile, or whom a restarted
//! process excludes, gets nothing.

use serde_json::{Map, Value};
use usher_connectors::{HEADERS, Operation, StepInput, SubjectChange, Unfit};
use usher_engine::{NotCalled, SkipReason, StepReport};
use usher_flows::{Context, Flow};
use usher_proto::unsubscribe::{LIST_UNSUBSCRIBE, LIST_UNSUBSCRIBE_POST, Unsubscribe};
use usher_proto::{AddressDigest, Reason};
use usher_store::MailRecipients;
use usher_suppression::{InvalidRecipient, Rules};

use super::request_maker::{RequestMaker, skipped};
use super::step_call::StepCall;
use super::{StepExit, of_step, reject};

impl RequestMaker {
    /// Returns the request in its stored form, together with its recipients. `known` is the newest known state of the run's
    /// subject.
    pub(super) async fn request(
        &self,
        flow: &Flow,
        step_call: &StepCall<'_>,
        context: Context,
        known: Option<&str>,
    ) -> Result<Vec<u8>, StepExit> {
        match &step_call.run.request {
            // The outcome of this request is unknown, so exactly this request is repeated, or none.
            Some(kept) => self.repeated(step_call, kept).await,
            None => self.made(flow, step_call, context, known).await,
        }
    }

    async fn repeated(&self, step_call: &StepCall<'_>, kept: &[u8]) -> Result<Vec<u8>, StepExit> {
        if !step_call.writes_to().is_empty() {
            let (recipients, _) = usher_suppression::kept(kept);
            let rules = self.rules(step_call, &recipients).await?;
            let held = recipients.iter().find_map(|address| rules.held(address));
            if let Some(held) = held.or_else(|| rules.held_unseen().filter(|_| recipients.is_empty())) {
                return Err(held_back(step_call, held));
            }
        }
        Ok(kept.to_vec())
    }

    async fn made(
        &self,
        flow: &Flow,
        step_call: &StepCall<'_>,
        mut context: Context,
        known: Option<&str>,
    ) -> Result<Vec<u8>, StepExit> {
        let run = step_call.run;
        let call = step_call.call;
        let writes_to = step_call.writes_to();
        let cannot = |error: &dyn std::fmt::Display| reject(Reason::Template, of_step(step_call.step, error));
        let unfit = |unfit: Unfit| reject(unfit.reason(), of_step(step_call.step, &unfit));
        let phones = usher_connectors::phones(&call.connector, &call.operation);
        let asked: Vec<&str> = writes_to.iter().copied().chain(phones.iter().copied()).collect();
        let mut people = usher_flows::render_some(call, &asked, &context).map_err(|error| cannot(&error))?;
        usher_connectors::fit(&call.connector, &call.operation, &mut people).map_err(unfit)?;
        let not_an_address = |error: InvalidRecipient| reject(Reason::InvalidAddress, of_step(step_call.step, &error));
        let mut recipients = usher_suppression::recipients(&mut people, writes_to).map_err(not_an_address)?;
        let test_number = usher_suppression::drop_test_numbers(&mut people, &phones);
        if !writes_to.is_empty() {
            // Without an address the message would go to the test number.
            if test_number && recipients.is_empty() {
                return Err(held_back(step_call, SkipReason::HeldBack));
            }
            let rules = self.rules(step_call, &recipients).await?;
            let unseen = rules.held_unseen().filter(|_| recipients.is_empty());
            let held = usher_suppression::drop_suppressed(&mut people, writes_to, |address| rules.held(address));
            if let Some(held) = held.or(unseen) {
                return Err(held_back(step_call, held));
            }
            recipients.retain(|address| rules.held(address).is_none());
        }
        let link = call.marketing.as_ref().map(|list| self.link(step_call, list, &recipients)).transpose()?;
        if let Some(link) = &link {
            context.set_unsubscribe_url(link);
        }
        let mut params = usher_flows::render(flow, call, &context).map_err(|error| cannot(&error))?;
        params.retain(|name, _| !asked.contains(&name.as_str()));
        usher_connectors::fit(&call.connector, &call.operation, &mut params).map_err(unfit)?;
        params.extend(people);
        if let Some(link) = link.filter(|_| step_call.operation.is_some_and(Operation::takes_headers)) {
            carry(&mut params, &link);
        }
        let operation = call.operation.as_str();
        let inputs = StepInput { operation, params: &params, event: &run.event, known, rerun: run.rerun };
        if step_call.connector.subject_change(&inputs) == SubjectChange::Nothing {
            return Err(skipped(step_call.step, NotCalled::InPlace, &step_call.next).into());
        }
        let request = step_call.connector.prepare(&inputs).map_err(|error| cannot(&error))?;
        Ok(usher_suppression::keep(&recipients, request))
    }

    /// Loads the suppression rules for these addresses.
    async fn rules(&self, step_call: &StepCall<'_>, recipients: &[String]) -> Result<Rules<'_>, StepExit> {
        let mail = MailRecipients {
            instance: step_call.run.event.instance().to_owned(),
            list: step_call.call.marketing.clone(),
            addresses: recipients.iter().map(|address| AddressDigest::of(address)).collect(),
        };
        let listed = self.ask(|| self.suppressions.read(mail.clone())).await?;
        Ok(Rules { allowlist: &self.suppression.allowlist, listed })
    }

    /// Returns the unsubscribe link of this list for the message's only recipient.
    fn link(&self, step_call: &StepCall<'_>, list: &str, recipients: &[String]) -> Result<String, StepExit> {
        let Some(links) = &self.suppression.links else {
            // The run began before the flow lost its `marketing` and the process its settings.
            return Err(reject(Reason::Configuration, "USHER_UNSUBSCRIBE_SECRET and USHER_PUBLIC_URL are not set"));
        };
        let [recipient] = recipients else {
            let why = "marketing mail goes to one address: the link that ends it is made for one";
            return Err(reject(Reason::Template, why));
        };
        Ok(links.url(&Unsubscribe::new(&step_call.run.event.subject, list, AddressDigest::of(recipient))))
    }
}

fn held_back(step_call: &StepCall<'_>, held: SkipReason) -> StepExit {
    StepReport::HeldBack { step: step_call.step.name.clone(), held, next: step_call.next.clone() }.into()
}

/// Adds the headers with which a mail program unsubscribes in one click (RFC 8058). They replace such headers of the
/// flow.
fn carry(params: &mut Map<String, Value>, link: &str) {
    let mut headers = match params.remove(HEADERS) {
        Some(Value::Object(headers)) => headers,
        _ => Map::new(),
    };
    let ours = [(LIST_UNSUBSCRIBE, format!("<{link}>")), (LIST_UNSUBSCRIBE_POST.0, LIST_UNSUBSCRIBE_POST.1.to_owned())];
    headers.retain(|name, _| ours.iter().all(|(known, _)| !name.eq_ignore_ascii_case(known)));
    headers.extend(ours.map(|(name, value)| (name.to_owned(), Value::String(value))));
    params.insert(HEADERS.to_owned(), Value::Object(headers));
}

//! From a step to the exact request, or to the reason why nobody is written to. Whom it would write to is looked at before
//! each attempt, also of a request that is kept: who has said no meanwhile, or is left out by a process that was started
//! anew, gets nothing.

use serde_json::{Map, Value};
use usher_proto::unsubscribe::{LIST_UNSUBSCRIBE, LIST_UNSUBSCRIBE_POST, Unsubscribe};
use usher_proto::{AddressDigest, Reason};

use super::attempt::{Asking, Early, Workshop, reject};
use crate::connectors::{self, HEADERS, Inputs};
use crate::engine::{Held, Report};
use crate::flows::{self, Context, Flow};
use crate::reach::{self, Rules};

impl Workshop {
    /// The request as it is kept.
    pub(super) async fn request(
        &self,
        flow: &Flow,
        asking: &Asking<'_>,
        mut context: Context,
    ) -> Result<Vec<u8>, Early> {
        let Asking { run, call, .. } = asking;
        let operation = connectors::operation(&call.connector, &call.operation);
        let writes_to = operation.map_or(&[][..], |operation| operation.writes_to);
        if let Some(kept) = &run.request {
            // Its outcome is not known, so it is this request and no other, or none.
            if !writes_to.is_empty() {
                let (recipients, _) = reach::kept(kept);
                let rules = self.rules(call.marketing.as_deref(), &recipients).await?;
                let held = recipients.iter().find_map(|address| rules.held(address));
                let unseen = || rules.held_unseen().filter(|_| recipients.is_empty());
                held.or_else(unseen).map_or(Ok(()), |held| Err(self.held_back(asking, held)))?;
            }
            return Ok(kept.clone());
        }

        let cannot = |error: &dyn std::fmt::Display| reject(Reason::Template, error.to_string());
        let mut people = flows::render_some(call, writes_to, &context).map_err(|error| cannot(&error))?;
        let mut recipients = reach::recipients(&people, writes_to).map_err(|error| cannot(&error))?;
        if !writes_to.is_empty() {
            let rules = self.rules(call.marketing.as_deref(), &recipients).await?;
            let unseen = rules.held_unseen().filter(|_| recipients.is_empty());
            let held = reach::leave_out(&mut people, writes_to, |address| rules.held(address)).or(unseen);
            held.map_or(Ok(()), |held| Err(self.held_back(asking, held)))?;
            recipients.retain(|address| rules.held(address).is_none());
        }
        let link = match &call.marketing {
            None => None,
            Some(list) => {
                let link = self.link(asking, list, &recipients)?;
                context.set_unsubscribe_url(&link);
                operation.is_some_and(connectors::Operation::takes_headers).then_some(link)
            }
        };
        let mut params = flows::render(flow, call, &context).map_err(|error| cannot(&error))?;
        for name in writes_to {
            params.remove(*name);
        }
        params.extend(people);
        if let Some(link) = link {
            carry(&mut params, &link);
        }
        let inputs =
            Inputs { operation: &call.operation, params: &params, event: &run.event, data: context.event_data() };
        let request = asking.connector.prepare(&inputs).map_err(|error| cannot(&error))?;
        Ok(reach::keep(&recipients, request))
    }

    /// What is known of these addresses.
    async fn rules(&self, list: Option<&str>, recipients: &[String]) -> Result<Rules<'_>, Early> {
        let digests: Vec<AddressDigest> = recipients.iter().map(|address| AddressDigest::of(address)).collect();
        let listed = self.ask(|| self.store.listed(list, &digests)).await?;
        Ok(Rules { only_to: &self.reach.only_to, listed })
    }

    fn held_back(&self, asking: &Asking<'_>, held: Held) -> Early {
        let (flow, event) = (self.versions.name(), &asking.run.event.id);
        self.metrics.held_back.with_label_values(&[flow, held.label()]).inc();
        tracing::info!(flow, step = asking.step.name, %event, why = held.label(), "nobody is written to");
        Report::HeldBack { held, next: asking.next.clone() }.into()
    }

    /// The link that ends mail of this list for its one recipient.
    fn link(&self, asking: &Asking<'_>, list: &str, recipients: &[String]) -> Result<String, Early> {
        let Some(links) = &self.reach.links else {
            // A run that began before the flow lost its marketing and the process its settings.
            return Err(reject(Reason::Configuration, "USHER_UNSUBSCRIBE_SECRET and USHER_PUBLIC_URL are not set"));
        };
        let [recipient] = recipients else {
            let why = "marketing mail goes to one address: the link that ends it is made for one";
            return Err(reject(Reason::Template, why));
        };
        Ok(links.url(&Unsubscribe::new(&asking.run.event.key, list, AddressDigest::of(recipient))))
    }
}

/// The headers that let a mail program end it with one click (RFC 8058). In the place of what the flow may have given.
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

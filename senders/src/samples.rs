//! Samples of the senders' events. Those that concern a person concern the one of Clerk's samples.

use serde_json::Value;
use usher_proto::Source;

/// Type and JSON text of each sample.
type Sample = (&'static str, &'static str);

const STRIPE: [Sample; 5] = [
    ("customer.created", include_str!("samples/stripe.customer.created.json")),
    ("customer.subscription.created", include_str!("samples/stripe.customer.subscription.created.json")),
    ("invoice.payment_failed", include_str!("samples/stripe.invoice.payment_failed.json")),
    ("checkout.session.completed", include_str!("samples/stripe.checkout.session.completed.json")),
    ("charge.succeeded", include_str!("samples/stripe.charge.succeeded.json")),
];
const NYLAS: [Sample; 3] = [
    ("message.created", include_str!("samples/nylas.message.created.json")),
    ("message.created.truncated", include_str!("samples/nylas.message.created.truncated.json")),
    ("grant.expired", include_str!("samples/nylas.grant.expired.json")),
];
const RESEND: [Sample; 3] = [
    ("email.delivered", include_str!("samples/resend.email.delivered.json")),
    ("email.clicked", include_str!("samples/resend.email.clicked.json")),
    ("email.bounced", include_str!("samples/resend.email.bounced.json")),
];

/// States of subscriptions, by the type of the event that tells of them.
const STATES: [(&str, &str); 3] = [
    ("customer.subscription.deleted", "canceled"),
    ("customer.subscription.paused", "paused"),
    ("customer.subscription.resumed", "active"),
];

fn samples(source: Source) -> &'static [Sample] {
    match source {
        Source::Stripe => &STRIPE,
        Source::Nylas => &NYLAS,
        Source::Resend => &RESEND,
        Source::Clerk | Source::Usher | Source::Schedule | Source::Sender(_) => &[],
    }
}

/// Returns a sample of this type: its own, or one that is made of a relative's. `None` if the type is not known, or no
/// relative has a sample.
pub fn of_type(source: Source, kind: &str) -> Option<Value> {
    crate::event_types(source)?.iter().find(|known| **known == kind)?;
    let samples = samples(source);
    let parse = |(_, text): &Sample| serde_json::from_str::<Value>(text).ok();
    if let Some(own) = samples.iter().find(|(known, _)| *known == kind) {
        return parse(own);
    }
    // Types that differ in the last word are about the same kind of object, and so are a type and its variants.
    let family = |kind: &str| kind.rsplit_once('.').map(|(family, _)| family.to_owned());
    let is_variant = |known: &str| kind.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'));
    let relative = samples.iter().find(|(known, _)| is_variant(known) || family(known) == family(kind))?;
    let mut sample = parse(relative)?;
    sample["type"] = Value::from(kind);
    if let Some((_, state)) = STATES.iter().find(|(known, _)| *known == kind) {
        sample["data"]["object"]["status"] = Value::from(*state);
    }
    if kind.ends_with(".truncated")
        && let Some(message) = sample["data"]["object"].as_object_mut()
    {
        message.remove("body");
    }
    Some(sample)
}

/// Returns all types of which there is a sample, each after its source and a slash.
pub fn names() -> Vec<String> {
    let sources = [Source::Stripe, Source::Nylas, Source::Resend];
    let of = |source: Source| {
        let types = crate::event_types(source).unwrap_or_default().iter();
        types.filter(move |kind| of_type(source, kind).is_some()).map(move |kind| format!("{source}/{kind}"))
    };
    sources.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use usher_proto::Json;

    use super::*;
    use crate::{nylas, resend, stripe};

    #[test]
    fn every_sample_is_of_its_type_and_concerns_the_person_of_clerks_samples() {
        let person = usher_clerk::samples::of_type("user.created")[0]["data"]["id"].clone();
        let names = names();
        assert!(names.len() > 40, "{names:?}");
        for name in names {
            let (source, kind) = name.split_once('/').expect("a source");
            let source: Source = source.parse().expect("a source");
            let sample = of_type(source, kind).expect("a sample");
            assert_eq!(sample["type"], kind, "{name}");
            let text = sample.to_string();
            let data = Json::read(&text).expect("JSON").get("data");
            let owner = match source {
                Source::Stripe => stripe::owner(data, "e"),
                Source::Nylas => nylas::owner(kind, data, "e"),
                _ => resend::owner(data, "e"),
            };
            let is_person = source != Source::Nylas;
            assert!(!is_person || owner.key.as_str() == person, "{name}: {owner:?}");
        }
        assert_eq!(
            of_type(Source::Stripe, "customer.subscription.deleted").expect("one")["data"]["object"]["status"],
            "canceled"
        );
        assert!(
            of_type(Source::Nylas, "message.created.cleaned.truncated").expect("one")["data"]["object"]
                .get("body")
                .is_none()
        );
        assert!(of_type(Source::Stripe, "no.such").is_none() && of_type(Source::Usher, "command").is_none());
    }

    #[test]
    fn every_sample_has_a_known_type() {
        for source in [Source::Stripe, Source::Nylas, Source::Resend] {
            let known = crate::event_types(source).expect("types");
            assert!(samples(source).iter().all(|(kind, _)| known.contains(kind)), "{source}");
        }
    }
}

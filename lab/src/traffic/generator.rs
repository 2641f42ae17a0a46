//! Makes many events from one template. Determines the person and the id of the n-th event. Pure.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use usher_proto::{Source, Timestamp};

use super::person::{ID_LENGTH, Person, draws, word};
use super::rewrite::rewrite;
use super::template::Template;
use crate::ids;

const MESSAGE: u64 = 3;

/// One event, not yet signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedEvent {
    /// The event's id: the value of the `svix-id` header, or the `id` in the body of senders that put it there.
    pub id: String,
    /// Id of the Clerk user that the event is about. `None` if it is about no user.
    pub user: Option<String>,
    /// The request body.
    pub body: Bytes,
}

/// Makes events. The same seed, number and time always give the same event.
#[derive(Debug, Clone)]
pub struct Generator {
    template: Template,
    users: Option<NonZeroU64>,
    seed: u64,
}

impl Generator {
    /// Creates a generator. Without `users` every event is the template, byte for byte, with its own `svix-id`. With
    /// `users` the events are about that many people in turn, and their times are those at which they are made.
    pub fn new(template: Template, users: Option<NonZeroU64>, seed: u64) -> Self {
        Self { template, users, seed }
    }

    /// Returns the event type of the template.
    pub fn kind(&self) -> &str {
        self.template.kind()
    }

    /// Returns the `number`-th event, counted from 0. Its time is `now` plus one millisecond for each earlier event
    /// about the same person, so that two of them never have the same `updated_at`.
    pub fn event(&self, number: u64, now: Timestamp) -> GeneratedEvent {
        let mut rng = draws(self.seed ^ word(self.template.kind()), MESSAGE, number, now.millis().cast_unsigned());
        let is_in_body = matches!(self.template.source(), Source::Stripe | Source::Nylas);
        let prefix = if self.template.source() == Source::Stripe { "evt_" } else { "msg_" };
        let id = format!("{prefix}{}", ids::base62(&mut rng, ID_LENGTH));
        let Some(users) = self.users else {
            let user = self.template.user().map(str::to_owned);
            let own = self.template.value["id"].as_str().filter(|_| is_in_body);
            return GeneratedEvent { id: own.map_or(id, str::to_owned), user, body: self.template.text().clone() };
        };
        let person = Person::new(self.seed, number % users);
        let mut body = rewrite(&self.template, &person, now.plus(Duration::from_millis(number / users)));
        if is_in_body {
            body["id"] = Value::from(id.as_str());
        }
        GeneratedEvent { id, user: self.template.user().map(|_| person.id), body: body.to_string().into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn generator(users: u64) -> Generator {
        Generator::new(Template::sample("user.updated").expect("a sample"), NonZeroU64::new(users), 7)
    }

    #[test]
    fn the_same_seed_makes_the_same_events() {
        assert_eq!(generator(3).event(5, NOW), generator(3).event(5, NOW));
    }

    #[test]
    fn every_event_has_an_id_of_its_own_also_in_the_next_run() {
        let later = NOW.plus(Duration::from_millis(1));
        let ids = (0..100).flat_map(|number| [NOW, later].map(|now| generator(3).event(number, now).id));
        assert_eq!(ids.collect::<HashSet<_>>().len(), 200);
    }

    #[test]
    fn people_take_turns() {
        let users: Vec<_> = (0..6).map(|number| generator(3).event(number, NOW).user.expect("a user")).collect();
        assert_eq!(users[..3], users[3..]);
        assert_eq!(users.iter().collect::<HashSet<_>>().len(), 3);
    }

    #[test]
    fn a_persons_events_never_share_a_time() {
        let times: Vec<i64> = (0..4)
            .map(|number| {
                let body: Value = serde_json::from_slice(&generator(1).event(number, NOW).body).expect("JSON");
                body["data"]["updated_at"].as_i64().expect("a time")
            })
            .collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    }

    #[test]
    fn without_users_the_text_goes_out_byte_for_byte() {
        let text = "{ \"type\":\"user.created\",\n  \"data\" : {\"id\": \"user_x\"} }\n\n";
        let generator = Generator::new(Template::from_text(text).expect("an event"), None, 1);
        for number in 0..2 {
            let event = generator.event(number, NOW);
            assert_eq!((event.body.as_ref(), event.user.as_deref()), (text.as_bytes(), Some("user_x")));
        }
    }

    #[test]
    fn an_event_of_another_sender_has_its_id_in_its_body_and_concerns_the_same_people() {
        let stripe = Template::sample("stripe/customer.subscription.created").expect("a sample");
        let users = Generator::new(Template::sample("user.created").expect("a sample"), NonZeroU64::new(2), 7);
        let generator = Generator::new(stripe, NonZeroU64::new(2), 7);
        for number in 0..4 {
            let event = generator.event(number, NOW);
            let body: Value = serde_json::from_slice(&event.body).expect("JSON");
            assert_eq!((body["id"].as_str(), body["created"].as_i64()), (Some(event.id.as_str()), Some(NOW.seconds())));
            let person = users.event(number, NOW).user;
            assert_eq!(body["data"]["object"]["metadata"]["clerk_user_id"].as_str(), person.as_deref());
            assert_eq!(event.user, person);
        }
        let resend = Template::sample("resend/email.clicked").expect("a sample");
        let event = Generator::new(resend, NonZeroU64::new(1), 7).event(0, NOW);
        let body: Value = serde_json::from_slice(&event.body).expect("JSON");
        assert_eq!(body["created_at"].as_str(), Some(NOW.to_string().as_str()));
    }

    #[test]
    fn an_event_about_nobody_has_no_user() {
        let waitlist = Template::sample("waitlistEntry.created").expect("a sample");
        let event = Generator::new(waitlist, NonZeroU64::new(5), 1).event(0, NOW);
        assert_eq!(event.user, None);
    }
}

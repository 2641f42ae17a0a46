//! The events that a schedule makes. Each is of source `schedule`, has the flow's name as its type, and carries the subject
//! whose run it starts, so that the run is in order with the subject's other events.

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use usher_proto::{Event, EventId, Instance, Key, Source, SubjectId, Timestamp};

use super::Schedule;
use crate::Flow;

impl Flow {
    /// Returns the subject of the run that a schedule without `subjects` starts: the flow itself.
    pub fn own_subject(&self, instance: &Instance) -> SubjectId {
        SubjectId::new(Source::Schedule, instance, &Key::new(self.name.as_str()))
    }
}

/// Returns the event that starts the run of one subject for the time `at`. The id is the same whoever makes the event, and
/// how often, so the store recognises a repetition.
pub fn firing_event(flow: &Flow, schedule: &Schedule, at: Timestamp, subject: &SubjectId, now: Timestamp) -> Event {
    // The subject's key may be personal data, which no id may show.
    let digest = Sha256::digest(format!("{}\n{}\n{}", flow.name, at.millis(), subject.as_str()));
    let user = (subject.source() != Source::Schedule.label()).then(|| subject.key());
    let data = json!({
        "flow": flow.name,
        "pattern": schedule.pattern_at(at),
        "time_zone": schedule.zone(),
        "scheduled_for": at,
        "local_time": schedule.local(at),
        "user_id": user,
    });
    Event {
        id: EventId::new(format!("firing_{}", hex::encode(&digest[..12]))),
        kind: flow.name.clone(),
        source: Source::Schedule,
        subject: subject.clone(),
        occurred_at: at,
        received_at: now,
        provenance: Vec::new(),
        body: Bytes::from(json!({ "type": flow.name, "data": data }).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowSource;

    fn flow(name: &str) -> Flow {
        let toml = "on = [\"schedule/0 9 * * 1\"]\ntime_zone = \"Europe/Berlin\"\nsubjects = \"user.email\"\n\
                    [[step]]\nuse = \"resend.send\"\nto = \"{{ user.email }}\"\nsubject = \"Hello\"\ntext = \"News\"\n\
                    needs = \"user.email\"";
        let file = format!("{name}.toml");
        let source = FlowSource { name: name.into(), file, toml: toml.into(), templates: Default::default() };
        Flow::check(source).expect("a good flow")
    }

    fn event(flow: &Flow, at: Timestamp, key: &str) -> Event {
        let subject = SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(key));
        firing_event(flow, flow.schedule.as_ref().expect("a schedule"), at, &subject, at)
    }

    #[test]
    fn a_firing_has_one_id_for_each_subject_time_and_flow() {
        let (digest, other) = (flow("digest"), flow("other"));
        let monday: Timestamp = "2026-11-30T08:00:00Z".parse().expect("a time");
        let later = monday.plus(std::time::Duration::from_secs(7 * 24 * 3600));
        let one = event(&digest, monday, "user_1");
        assert_eq!(one.id, event(&digest, monday, "user_1").id);
        for another in
            [event(&digest, later, "user_1"), event(&digest, monday, "user_2"), event(&other, monday, "user_1")]
        {
            assert_ne!(one.id, another.id);
        }
        assert!(!one.id.as_str().contains("user_1"));
    }

    #[test]
    fn a_firing_starts_its_own_flow_and_tells_what_it_is_for() {
        let (digest, other) = (flow("digest"), flow("other"));
        let monday: Timestamp = "2026-11-30T08:00:00Z".parse().expect("a time");
        let made = event(&digest, monday, "user_1");
        assert!(digest.starts(&made) && !other.starts(&made));
        assert!(!digest.starts(&Event { source: Source::Clerk, ..made.clone() }), "nobody else can make one");
        assert_eq!(Event::from_record(&made.clone().into_record()), Ok(made.clone()));
        let data = made.data().map(|data| data.as_str().to_owned()).expect("data");
        for part in
            ["\"0 9 * * 1\"", "2026-11-30T09:00:00+01:00[Europe/Berlin]", "\"user_1\"", "2026-11-30T08:00:00.000Z"]
        {
            assert!(data.contains(part), "{data}");
        }
    }
}

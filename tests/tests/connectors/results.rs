//! Results and errors derived from any answer of a destination can be stored.

use usher_connectors::{CallGate, Lookup};
use usher_engine::{Effect, Outcome};
use usher_proto::visible;

use super::server::{TestServer, answer};
use super::subject::{KEY, SUBJECTS};

/// Maximum size of a stored result of an effect, in bytes.
const LARGEST: usize = 20 * 1024;

fn assert_storable(effect: &Effect, case: &str) {
    let result = effect.result.to_string();
    assert!(!effect.id.contains(visible::is_control) && effect.id.chars().count() <= 255, "{case}: {effect:?}");
    assert!(!result.contains("\\u00") && !result.contains(visible::is_control), "{case}: {result}");
    assert!(result.len() <= LARGEST && effect.result["id"] == effect.id, "{case}: {}", result.len());
}

/// Returns problematic texts in their JSON encoding.
fn odd() -> Vec<String> {
    let long = "x".repeat(100_000);
    let shown =
        [r"re_\u0000x", r"\u001b[2J\r\n\u007f\u009b\u202e", r"\ud800", r"\udc00\ud83d", "", "'; DROP TABLE x", &long];
    shown.map(str::to_owned).to_vec()
}

#[tokio::test]
async fn an_odd_answer_gives_an_effect_that_can_be_kept() {
    let mut done = 0;
    for subject in SUBJECTS {
        for odd in odd() {
            // Every text in the answer is this one, in one variant also the result of a lookup.
            for body in [
                format!(
                    r#"{{"id":"{odd}","status":"{odd}","request_id":"{odd}","data":{{"id":"{odd}","status":"processed","transactionId":"{odd}"}},"taskID":1,"objectID":"{odd}"}}"#
                ),
                format!(r#"{{"id":"x","status":"subscribed","{odd}":"{odd}","taskID":1,"request_id":"{odd}"}}"#),
                format!(
                    r#"{{"data":[{{"id":"{odd}","status":{{"a":"{odd}"}},"metadata":{{"usher_key":"{KEY}"}},"transactionId":"{KEY}","headers":[{{"name":"X-Usher-Key","value":"{KEY}"}}]}}],"has_more":false}}"#
                ),
            ] {
                let server = TestServer::start(answer(200, &[], &body)).await;
                let connector = subject.open(&server.url());
                let request = subject.prepare(&*connector);
                let case = format!("{}: {}", subject.name, body.chars().take(200).collect::<String>());
                if let Outcome::Done(effect) = connector.attempt(&request, KEY, &CallGate::open()).await {
                    assert_storable(&effect, &case);
                    done += 1;
                }
                if let Lookup::Found(effect) = connector.lookup(&request, KEY, &CallGate::open()).await {
                    assert_storable(&effect, &case);
                    done += 1;
                }
            }
        }
    }
    assert!(done > 80, "{done}");
}

#[tokio::test]
async fn an_odd_refusal_gives_an_error_that_can_be_kept() {
    for subject in SUBJECTS {
        for odd in odd() {
            let said = format!(r#"{{"type":"{odd}","code":"{odd}","message":"{odd}"}}"#);
            let body = format!(r#"{{"name":"{odd}","title":"{odd}","message":"{odd}","error":{said}}}"#);
            for status in [400, 404, 422] {
                let server = TestServer::start(answer(status, &[], &body)).await;
                match subject.attempt(&server.url()).await {
                    Outcome::Reject { error, .. } => {
                        let fits = !error.contains(visible::is_control) && error.chars().count() <= 300;
                        assert!(fits, "{}: {status}: {error:?}", subject.name);
                    }
                    // Retried: Stripe's 409 and errors of Mailchimp's edge servers.
                    Outcome::Retry { .. } => {}
                    outcome @ (Outcome::Done(_) | Outcome::Overtaken) => panic!("{}: {outcome:?}", subject.name),
                }
            }
        }
    }
}

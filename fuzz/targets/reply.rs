//! Replies of a mail server. Input: a byte for the stage, then the reply.
#![no_main]

use lettre::transport::smtp::response::Response;
use libfuzzer_sys::fuzz_target;
use usher_engine::Outcome;

// The file itself: building all connectors with these flags would take most of the time.
#[allow(dead_code)]
#[path = "../../dispatcher/connectors/src/smtp/classify.rs"]
mod reply;

use reply::{Stage, refused};

const STAGES: [Stage; 6] = [Stage::Connect, Stage::Login, Stage::Sender, Stage::Recipient, Stage::Data, Stage::Dot];

fuzz_target!(|data: &[u8]| {
    let Some((stage, data)) = data.split_first() else { return };
    let stage = STAGES[usize::from(*stage) % STAGES.len()];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(response) = text.parse::<Response>() else { return };

    // lettre reads the same reply from what it read.
    let lines: Vec<&str> = response.message().collect();
    let last = lines.len() - 1;
    let line =
        |(at, line): (usize, &&str)| format!("{}{}{line}\r\n", response.code(), if at == last { ' ' } else { '-' });
    let written: String = lines.iter().enumerate().map(line).collect();
    assert!(written.parse::<Response>().is_ok_and(|again| again == response));

    let code = u16::from(response.code());
    if response.is_positive() {
        return;
    }
    let text = lines.join(" ");
    let outcome = refused(stage, code, &text);
    // The first digit decides, and nothing of the text but a code at its beginning.
    let first_word = text.split_whitespace().next().unwrap_or_default();
    let only_code = refused(stage, code, first_word);
    let replaced = refused(stage, code, &format!("{first_word} <dana@work.test> something else"));
    for other in [&only_code, &replaced] {
        assert_eq!(format!("{outcome:?}"), format!("{other:?}"));
    }
    match outcome {
        Outcome::Retry { .. } => assert!(code < 500),
        Outcome::Reject { error, .. } => {
            assert!(code >= 500 && error.starts_with(&code.to_string()));
            let is_plain = |c: char| c.is_ascii_alphanumeric() || " .:,'".contains(c);
            assert!(error.len() < 100 && error.chars().all(is_plain), "{error}");
        }
        Outcome::Done(_) | Outcome::Overtaken => panic!("a refusal is no success"),
    }
});

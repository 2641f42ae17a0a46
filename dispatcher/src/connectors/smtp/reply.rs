//! What a server's refusals mean.
//!
//! Facts: RFC 5321 4.2 (the first digit decides: 4 is for now, 5 for good), RFC 3463 (`X.Y.Z` at the beginning of the
//! text), RFC 4954 (454, 530, 534, 535, 538 are about authentication). A refusal, also of the dot, says that nothing was
//! done.

use std::error::Error as _;

use lettre::transport::smtp::Error;
use usher_proto::Reason;

use crate::engine::{Cause, Outcome};

/// How far it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Greeting, EHLO, STARTTLS.
    Connect,
    /// AUTH.
    Login,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, and the message without its end.
    Data,
    /// The dot has left, at least in part.
    Dot,
}

impl Stage {
    const fn label(self) -> &'static str {
        match self {
            Self::Connect => "EHLO",
            Self::Login => "AUTH",
            Self::Sender => "MAIL",
            Self::Recipient => "RCPT",
            Self::Data => "DATA",
            Self::Dot => "message",
        }
    }
}

/// The outcome of an attempt that failed at this stage.
pub(super) fn classify(stage: Stage, error: &Error) -> Outcome {
    if let Some(code) = error.status() {
        return refused(stage, u16::from(code), &error.source().map(ToString::to_string).unwrap_or_default());
    }
    match stage {
        Stage::Dot if error.is_timeout() => Outcome::retry(Cause::Timeout),
        Stage::Dot => Outcome::retry(Cause::Interrupted),
        // The server lacks what the address asks of it: STARTTLS, a way to log in.
        Stage::Connect | Stage::Login if error.is_client() => {
            Outcome::reject(Reason::Configuration, format!("not offered at {}", stage.label()))
        }
        Stage::Connect | Stage::Login | Stage::Sender | Stage::Recipient | Stage::Data => {
            Outcome::retry(Cause::Unreachable)
        }
    }
}

fn refused(stage: Stage, code: u16, text: &str) -> Outcome {
    let enhanced = enhanced(text);
    if code < 500 {
        return Outcome::retry(match (code, stage) {
            // "Service not available, closing", which most servers also say to whoever comes too often.
            (421, _) => Cause::Throttled,
            (_, Stage::Connect | Stage::Login) => Cause::Unreachable,
            // A full mailbox, greylisting, a lock: of this mail, as far as one attempt can tell.
            _ => Cause::Deferred,
        });
    }
    // Class 5.7: security or policy. Of sender and relay it is about the account; of the message, about its content.
    let about_policy = enhanced.is_some_and(|code| code.starts_with("5.7."));
    let reason = match (code, stage) {
        (530 | 534 | 535 | 538, _) | (_, Stage::Connect | Stage::Login | Stage::Sender) => Reason::Configuration,
        (_, Stage::Recipient) if about_policy => Reason::Configuration,
        // 550, 551, 553, 556: no such mailbox; 552: full or too large; 554: refused; 500 to 504, 555: not understood.
        (_, Stage::Recipient | Stage::Data | Stage::Dot) => Reason::InvalidRequest,
    };
    let parts = [Some(code.to_string()), enhanced.map(str::to_owned), Some(format!("at {}", stage.label()))];
    Outcome::reject(reason, parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// `5.1.1` at the beginning of a reply's text. The rest of it may repeat an address.
fn enhanced(text: &str) -> Option<&str> {
    let word = text.split_whitespace().next()?;
    let mut parts = word.split('.');
    let number = |part: Option<&str>| {
        part.is_some_and(|part| matches!(part.len(), 1..=3) && part.bytes().all(|b| b.is_ascii_digit()))
    };
    (number(parts.next()) && number(parts.next()) && number(parts.next()) && parts.next().is_none()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::assert_outcome;

    #[test]
    fn every_documented_reply_has_its_outcome() {
        use Stage::{Connect, Data, Dot, Login, Recipient, Sender};
        for (stage, code, text, expected) in [
            (Connect, 421, "4.3.2 shutting down", Ok(Cause::Throttled)),
            (Connect, 454, "4.7.0 TLS not available", Ok(Cause::Unreachable)),
            (Connect, 554, "no SMTP service here", Err(Reason::Configuration)),
            (Login, 454, "4.7.0 try later", Ok(Cause::Unreachable)),
            (Login, 535, "5.7.8 bad credentials", Err(Reason::Configuration)),
            (Sender, 530, "5.7.0 authenticate first", Err(Reason::Configuration)),
            (Sender, 553, "5.1.8 not your address", Err(Reason::Configuration)),
            (Sender, 451, "4.3.0 try later", Ok(Cause::Deferred)),
            (Recipient, 450, "4.7.1 greylisted", Ok(Cause::Deferred)),
            (Recipient, 452, "4.5.3 too many recipients", Ok(Cause::Deferred)),
            (Recipient, 550, "5.1.1 <a@b.test> unknown", Err(Reason::InvalidRequest)),
            (Recipient, 551, "user not local", Err(Reason::InvalidRequest)),
            (Recipient, 552, "5.2.2 mailbox full", Err(Reason::InvalidRequest)),
            (Recipient, 553, "5.1.3 bad address", Err(Reason::InvalidRequest)),
            (Recipient, 554, "5.7.1 <a@b.test>: relay access denied", Err(Reason::Configuration)),
            (Recipient, 556, "5.1.10 null MX", Err(Reason::InvalidRequest)),
            (Data, 503, "5.5.1 bad sequence", Err(Reason::InvalidRequest)),
            (Dot, 421, "closing", Ok(Cause::Throttled)),
            (Dot, 451, "4.3.0 no space", Ok(Cause::Deferred)),
            (Dot, 552, "5.3.4 too large", Err(Reason::InvalidRequest)),
            (Dot, 554, "5.7.1 looks like spam", Err(Reason::InvalidRequest)),
            (Dot, 599, "never seen", Err(Reason::InvalidRequest)),
        ] {
            let outcome = refused(stage, code, text);
            assert_outcome(&outcome, expected, &format!("{stage:?} {code} {text}"));
            assert!(!format!("{outcome:?}").contains("a@b.test"), "the message is not repeated");
        }
    }

    #[test]
    fn an_error_names_code_enhanced_code_and_stage() {
        let Outcome::Reject { error, .. } = refused(Stage::Recipient, 550, "5.1.1 unknown") else { panic!("refused") };
        assert_eq!(error, "550 5.1.1 at RCPT");
        assert_eq!((enhanced("5.1.1"), enhanced("mail.test refuses"), enhanced("")), (Some("5.1.1"), None, None));
    }
}

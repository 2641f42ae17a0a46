//! Classification of a server's refusals.
//!
//! Facts: RFC 5321 4.2 (the first digit decides: 4 is temporary, 5 permanent), RFC 3463 (`X.Y.Z` at the beginning of
//! the text), RFC 4954 (454, 530, 534, 535, 538 are about authentication), RFC 7372 (`X.7.20` to `X.7.27` are about the
//! sender's domain), RFC 7505 and 7504 (`5.1.10`, 521, 556: no mail at all). A refusal, including one of the dot, means
//! that nothing was done.

use std::error::Error as _;

use lettre::transport::smtp::Error;
use usher_engine::{Cause, Outcome};
use usher_proto::Reason;

/// Stage of the SMTP conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Greeting, `EHLO`, `STARTTLS`.
    Connect,
    /// `AUTH`.
    Login,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, and the message without its end.
    Data,
    /// The dot was sent, at least in part.
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

/// Returns the outcome of an attempt that failed at this stage.
pub(super) fn classify(stage: Stage, error: &Error) -> Outcome {
    if let Some(code) = error.status() {
        return refused(stage, u16::from(code), &error.source().map(ToString::to_string).unwrap_or_default());
    }
    match stage {
        Stage::Dot if error.is_timeout() => Outcome::retry(Cause::Timeout),
        Stage::Dot => Outcome::retry(Cause::Interrupted),
        // The server lacks a feature that `SMTP_URL` requires: `STARTTLS` or a supported login mechanism.
        Stage::Connect | Stage::Login if error.is_client() => {
            Outcome::reject(Reason::Configuration, format!("not offered at {}", stage.label()))
        }
        Stage::Connect | Stage::Login | Stage::Sender | Stage::Recipient | Stage::Data => {
            Outcome::retry(Cause::Unreachable)
        }
    }
}

/// Returns the outcome of a reply with this code, 400 to 599, and this text.
pub(super) fn refused(stage: Stage, code: u16, text: &str) -> Outcome {
    let enhanced = enhanced(text);
    if code < 500 {
        return Outcome::retry(match (code, stage) {
            // "Service not available, closing"; most servers also send it to clients that connect too often.
            (421, _) => Cause::Throttled,
            (_, Stage::Connect | Stage::Login) => Cause::Unreachable,
            // A full mailbox, greylisting or a lock: it concerns this mail only, as far as one attempt can tell.
            _ => Cause::Deferred,
        });
    }
    let detail = enhanced.and_then(|code| code.strip_prefix("5."));
    let reason = match (code, detail, stage) {
        (530 | 534 | 535 | 538, _, _) | (_, _, Stage::Connect | Stage::Login | Stage::Sender) => Reason::Configuration,
        // RFC 7372: a receiver's checks of the sender's domain. Every mail from that domain fails them.
        (_, Some("7.20" | "7.21" | "7.22" | "7.23" | "7.24" | "7.25" | "7.26" | "7.27"), _) => Reason::Configuration,
        (556, _, Stage::Recipient) | (_, Some("1.1" | "1.2" | "1.6" | "1.10"), _) => Reason::NotFound,
        // Class 5.7, security or policy: for a recipient it is about permission to send there, for the message about
        // its content.
        (_, Some(detail), Stage::Recipient) if detail.starts_with("7.") => Reason::Configuration,
        // 550, 551, 553: no such mailbox, or not a local one; 552: full or too large; 554: refused; 500 to 504, 555:
        // not understood.
        (_, _, Stage::Recipient | Stage::Data | Stage::Dot) => Reason::InvalidRequest,
    };
    let mut error = code.to_string();
    error.extend(enhanced.map(|enhanced| format!(" {enhanced}")));
    error.push_str(&format!(" at {}", stage.label()));
    error.extend(words(code, detail).map(|words| format!(": {words}")));
    Outcome::reject(reason, error)
}

/// Describes a permanent refusal in fixed words: the server's text may repeat an address.
fn words(code: u16, detail: Option<&str>) -> Option<&'static str> {
    Some(match (detail, code) {
        (Some("1.1"), _) => "no such mailbox",
        (Some("1.2" | "1.10"), _) | (None, 556) => "the domain takes no mail",
        (Some("1.3"), _) => "not an address",
        (Some("1.6"), _) => "the mailbox has moved",
        (Some("1.7" | "1.8"), _) => "the sender's address is not accepted",
        (Some("2.1"), _) => "the mailbox is disabled",
        (Some("2.2"), _) => "the mailbox is full",
        (Some("2.3" | "3.4"), _) => "the message is too large",
        (Some("7.1"), _) => "refused by policy",
        (Some("7.8"), _) | (None, 535) => "wrong user or password",
        (Some("7.20" | "7.21" | "7.22" | "7.23" | "7.24" | "7.25" | "7.26" | "7.27"), _) => {
            "the sender's domain fails SPF, DKIM or DMARC"
        }
        (_, 530) => "a login is wanted",
        _ => return None,
    })
}

/// Returns the enhanced status code, such as `5.1.1`, at the beginning of a reply's text. The rest of the text may
/// repeat an address.
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
    use crate::assert_outcome;

    #[test]
    fn every_documented_reply_has_its_outcome() {
        use Stage::{Connect, Data, Dot, Login, Recipient, Sender};
        for (stage, code, text, expected) in [
            // Temporary: the first digit decides.
            (Connect, 421, "4.3.2 shutting down", Ok(Cause::Throttled)),
            (Connect, 454, "4.7.0 TLS not available", Ok(Cause::Unreachable)),
            (Login, 421, "4.7.0 too many connections", Ok(Cause::Throttled)),
            (Login, 454, "4.7.0 temporary authentication failure", Ok(Cause::Unreachable)),
            (Sender, 421, "4.7.0 try later", Ok(Cause::Throttled)),
            (Sender, 451, "4.3.0 try later", Ok(Cause::Deferred)),
            (Sender, 452, "4.3.1 insufficient storage", Ok(Cause::Deferred)),
            (Sender, 455, "cannot do these parameters now", Ok(Cause::Deferred)),
            (Recipient, 450, "4.2.1 <a@b.test> mailbox busy", Ok(Cause::Deferred)),
            (Recipient, 450, "4.7.1 greylisted", Ok(Cause::Deferred)),
            (Recipient, 451, "4.7.1 greylisted", Ok(Cause::Deferred)),
            (Recipient, 452, "4.2.2 mailbox full", Ok(Cause::Deferred)),
            (Recipient, 452, "4.5.3 too many recipients", Ok(Cause::Deferred)),
            (Dot, 421, "closing", Ok(Cause::Throttled)),
            (Dot, 451, "4.3.0 local error", Ok(Cause::Deferred)),
            (Dot, 452, "4.3.1 insufficient storage", Ok(Cause::Deferred)),
            (Dot, 499, "never seen", Ok(Cause::Deferred)),
            // Permanent, about the account.
            (Connect, 500, "not understood", Err(Reason::Configuration)),
            (Connect, 521, "no mail here", Err(Reason::Configuration)),
            (Connect, 550, "5.7.1 your address is listed", Err(Reason::Configuration)),
            (Connect, 554, "no SMTP service here", Err(Reason::Configuration)),
            (Login, 534, "5.7.9 mechanism too weak", Err(Reason::Configuration)),
            (Login, 535, "5.7.8 bad credentials", Err(Reason::Configuration)),
            (Login, 538, "5.7.11 encryption required", Err(Reason::Configuration)),
            (Sender, 530, "5.7.0 authenticate first", Err(Reason::Configuration)),
            (Sender, 550, "5.7.1 not allowed to send as that", Err(Reason::Configuration)),
            (Sender, 552, "5.3.4 too large", Err(Reason::Configuration)),
            (Sender, 553, "5.1.8 not your address", Err(Reason::Configuration)),
            (Recipient, 530, "5.7.0 authenticate first", Err(Reason::Configuration)),
            (Recipient, 550, "5.7.1 <a@b.test>: not allowed", Err(Reason::Configuration)),
            (Recipient, 554, "5.7.1 <a@b.test>: relay access denied", Err(Reason::Configuration)),
            (Dot, 550, "5.7.26 unauthenticated mail is not accepted", Err(Reason::Configuration)),
            (Dot, 550, "5.7.23 SPF validation failed", Err(Reason::Configuration)),
            // Permanent, about the mailbox.
            (Recipient, 550, "5.1.1 <a@b.test> unknown", Err(Reason::NotFound)),
            (Recipient, 550, "5.1.2 unknown domain", Err(Reason::NotFound)),
            (Recipient, 551, "5.1.6 moved", Err(Reason::NotFound)),
            (Recipient, 556, "5.1.10 null MX", Err(Reason::NotFound)),
            (Recipient, 556, "takes no mail", Err(Reason::NotFound)),
            (Dot, 550, "5.1.1 <a@b.test> unknown", Err(Reason::NotFound)),
            // Permanent, about this mail.
            (Recipient, 500, "", Err(Reason::InvalidRequest)),
            (Recipient, 501, "5.1.3 bad address", Err(Reason::InvalidRequest)),
            (Recipient, 502, "", Err(Reason::InvalidRequest)),
            (Data, 503, "5.5.1 bad sequence", Err(Reason::InvalidRequest)),
            (Recipient, 504, "", Err(Reason::InvalidRequest)),
            (Recipient, 550, "<a@b.test> unavailable", Err(Reason::InvalidRequest)),
            (Recipient, 550, "5.2.1 disabled", Err(Reason::InvalidRequest)),
            (Recipient, 551, "user not local", Err(Reason::InvalidRequest)),
            (Recipient, 552, "5.2.2 mailbox full", Err(Reason::InvalidRequest)),
            (Recipient, 553, "5.1.3 bad address", Err(Reason::InvalidRequest)),
            (Recipient, 554, "refused", Err(Reason::InvalidRequest)),
            (Recipient, 555, "parameters not recognised", Err(Reason::InvalidRequest)),
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
    fn an_error_names_code_enhanced_code_and_stage_and_says_what_it_is_about() {
        for (stage, code, text, expected) in [
            (Stage::Recipient, 550, "5.1.1 <a@b.test> unknown", "550 5.1.1 at RCPT: no such mailbox"),
            (Stage::Recipient, 552, "5.2.2 full", "552 5.2.2 at RCPT: the mailbox is full"),
            (Stage::Recipient, 556, "", "556 at RCPT: the domain takes no mail"),
            (Stage::Dot, 554, "5.7.1 spam", "554 5.7.1 at message: refused by policy"),
            (Stage::Dot, 550, "5.7.26 x", "550 5.7.26 at message: the sender's domain fails SPF, DKIM or DMARC"),
            (Stage::Login, 535, "5.7.8 bad", "535 5.7.8 at AUTH: wrong user or password"),
            (Stage::Recipient, 550, "no thanks", "550 at RCPT"),
        ] {
            let Outcome::Reject { error, .. } = refused(stage, code, text) else { panic!("refused: {expected}") };
            assert_eq!(error, expected);
        }
        assert_eq!((enhanced("5.1.1"), enhanced("mail.test refuses"), enhanced("")), (Some("5.1.1"), None, None));
    }
}

//! The lab of the same process: the doubles of the destinations, what arrived there, and the faults in force.

use std::sync::Arc;

use serde_json::Value;
use usher_lab::{Entry, Fault, FaultInForce, Filter, Lab, LedgerCounts};
use usher_proto::Timestamp;

use super::Moment;
use super::mails::words;
use crate::mask::Masking;
use crate::problem::ConsoleError;

/// Numbers of newest mails and requests that are shown.
const MAILS: usize = 20;
const REQUESTS: usize = 50;
/// Doubles that take mails.
const MAILERS: [&str; 3] = ["resend", "smtp", "nylas"];

/// Faults that a button puts in force: its name in the form, its words, and the fault.
pub(crate) fn faults() -> [(&'static str, &'static str, Fault); 5] {
    let status = |status: u16| Fault { status: Some(status), ..Fault::default() };
    [
        ("down", "answer 503", status(503)),
        ("limited", "answer 429", Fault { retry_after: Some(5), ..status(429) }),
        ("refuse", "refuse with 422", status(422)),
        ("slow", "wait 3 s", Fault { latency_ms: 3_000, ..Fault::default() }),
        ("lose", "lose the answer", Fault { drop_after_effect: true, ..Fault::default() }),
    ]
}

/// A double.
pub(crate) struct LabDouble {
    pub(crate) name: &'static str,
    pub(crate) counts: LedgerCounts,
    /// The faults in force, in words.
    pub(crate) faults: Vec<String>,
}

/// A mail that arrived.
pub(crate) struct LabMail {
    pub(crate) seq: u64,
    pub(crate) at: Moment,
    pub(crate) provider: &'static str,
    pub(crate) to: String,
    pub(crate) subject: String,
}

/// A request with its answer.
pub(crate) struct LabRequest {
    pub(crate) at: Moment,
    pub(crate) provider: &'static str,
    pub(crate) operation: String,
    /// Status of the answer; `None` if there was none.
    pub(crate) status: Option<u16>,
    pub(crate) replayed: bool,
    pub(crate) user: Option<String>,
    pub(crate) key: Option<String>,
}

/// The state of the lab.
pub(crate) struct LabDetail {
    pub(crate) doubles: Vec<LabDouble>,
    pub(crate) mails: Vec<LabMail>,
    pub(crate) requests: Vec<LabRequest>,
}

/// Returns the state of the lab: addresses and subjects as they are if they may be shown.
pub(crate) fn lab_detail(lab: &Lab, masking: Masking, now: Timestamp) -> Result<LabDetail, ConsoleError> {
    let counts = lab.counts();
    let double = |name: &'static str| -> Result<LabDouble, ConsoleError> {
        let faults = lab.faults(name).map_err(|error| ConsoleError::NotFound(error.to_string()))?;
        Ok(LabDouble {
            name,
            counts: counts.get(name).copied().unwrap_or_default(),
            faults: faults.iter().map(describe).collect(),
        })
    };
    let all = Filter::default();
    let read = |entries: Result<Vec<Arc<Entry>>, _>| {
        entries.map_err(|error: usher_lab::UnknownProvider| ConsoleError::NotFound(error.to_string()))
    };
    let mails = read(lab.effects(&all))?;
    let mails = mails.iter().rev().filter(|entry| MAILERS.contains(&entry.provider)).take(MAILS);
    let requests = read(lab.requests(&all))?;
    let requests = requests.iter().rev().take(REQUESTS);
    Ok(LabDetail {
        doubles: lab.providers().into_iter().map(double).collect::<Result<_, _>>()?,
        mails: mails.map(|entry| mail(entry, masking, now)).collect(),
        requests: requests.map(|entry| request(entry, now)).collect(),
    })
}

/// Returns the HTML and the text of a mail that arrived; `None` if it is not kept any more.
pub(crate) fn lab_mail(lab: &Lab, seq: u64) -> Option<LabContent> {
    let filter = Filter { since: Some(seq.checked_sub(1)?), limit: Some(1), ..Filter::default() };
    let entry = lab.effects(&filter).ok()?.pop().filter(|entry| entry.seq == seq)?;
    let text = |name: &str| entry.body.get(name).and_then(Value::as_str).map(str::to_owned);
    // Resend takes html and text, Nylas a body of HTML, and a mail server a message as a whole.
    Some(LabContent { html: text("html").or_else(|| text("body")), text: text("text").or_else(|| text("message")) })
}

/// The content of a mail.
pub(crate) struct LabContent {
    pub(crate) html: Option<String>,
    pub(crate) text: Option<String>,
}

fn mail(entry: &Entry, masking: Masking, now: Timestamp) -> LabMail {
    let found = ["/subject", "/headers/subject"].into_iter().find_map(|at| entry.body.pointer(at));
    let subject = found.map(words).unwrap_or_default();
    LabMail {
        seq: entry.seq,
        at: Moment::new(entry.at, now),
        provider: entry.provider,
        to: masking.sentence(entry.to.as_deref().unwrap_or_default()),
        // A subject may hold a name, which is not recognised as one.
        subject: if masking == Masking::Shown { subject } else { String::new() },
    }
}

fn request(entry: &Entry, now: Timestamp) -> LabRequest {
    LabRequest {
        at: Moment::new(entry.at, now),
        provider: entry.provider,
        operation: entry.operation.to_string(),
        status: entry.status,
        replayed: entry.replayed,
        user: entry.user.clone(),
        key: entry.idempotency_key.clone(),
    }
}

fn describe(in_force: &FaultInForce) -> String {
    let fault = &in_force.fault;
    let known = faults().into_iter().find(|(.., known)| known == fault).map(|(_, words, _)| words.to_owned());
    let status = || fault.status.map(|status| format!("answer {status}"));
    let words = known.or_else(status).unwrap_or_else(|| "a fault that was set by hand".to_owned());
    format!("{words}, hit {} requests", in_force.struck)
}

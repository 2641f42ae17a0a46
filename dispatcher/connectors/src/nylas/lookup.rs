//! Finds a mail among the messages of its mailbox.

use serde_json::{Value, json};
use usher_engine::Effect;

use super::request::{KEY_HEADER, StoredMail};
use super::{Nylas, REQUEST_TIMEOUT, mailbox_path};
use crate::{CallGate, Lookup, client};

/// Mails that are searched, at most. There are rarely more to one address, and Nylas recommends small pages.
const PAGE: &str = "50";

impl Nylas {
    /// Looks for the mail in its mailbox. It does not filter by folder: the Sent folder's id differs between providers.
    pub(super) async fn look_up(&self, stored: &StoredMail, key: &str, gate: &CallGate) -> Lookup {
        let path = mailbox_path(&stored.grant).map(|grant| {
            let page = grant.then("/messages").query("fields", "include_headers").query("limit", PAGE);
            page.query("received_after", &stored.since.to_string()).query("to", &stored.to)
        });
        match self.ask(path, REQUEST_TIMEOUT, gate).await {
            Ok(answer) if answer.status.is_success() => found(&answer.json(), &stored.mail["subject"], key),
            other => client::no_lookup(other),
        }
    }
}

/// Looks for the mail with this key in a page of the mailbox's messages.
pub(super) fn found(page: &Value, subject: &Value, key: &str) -> Lookup {
    let Some(list) = page["data"].as_array() else { return Lookup::Unknown };
    let header = |message: &Value| {
        let headers = message["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ours = |header: &&Value| header["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(KEY_HEADER));
        headers.iter().find(ours).and_then(|header| header["value"].as_str()).map(str::to_owned)
    };
    if let Some(message) = list.iter().find(|message| header(message).as_deref() == Some(key)) {
        return Lookup::Found(Effect::new(message["id"].as_str().unwrap_or_default(), json!({})));
    }
    // Some providers do not return foreign headers: a mail with the same subject but no such header may be this one.
    let nameless = list.iter().any(|message| header(message).is_none() && message["subject"] == *subject);
    if nameless || page["next_cursor"].is_string() { Lookup::Unknown } else { Lookup::Absent }
}

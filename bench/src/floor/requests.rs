//! The requests that the floor sends: a short text, or a mail with three templates.

use std::rc::Rc;

use minijinja::{Environment, context};
use serde_json::{Value, json};

use super::{FloorClaim, FloorRun};
use crate::dispatcher::{MAIL_HTML, MAIL_SUBJECT, MAIL_TO, TEXT};

/// Renders requests.
pub(super) struct FloorRequests {
    /// Templates of the mail, if it is mails that are sent.
    mail: Option<Environment<'static>>,
}

impl FloorRequests {
    /// Parses the templates.
    ///
    /// # Errors
    ///
    /// A template is wrong.
    pub(super) fn new(mail: bool) -> anyhow::Result<Self> {
        if !mail {
            return Ok(Self { mail: None });
        }
        let mut templates = Environment::new();
        templates.add_template("to", MAIL_TO)?;
        templates.add_template("subject", MAIL_SUBJECT)?;
        templates.add_template("html", MAIL_HTML)?;
        Ok(Self { mail: Some(templates) })
    }

    /// Returns the claims of these runs.
    ///
    /// # Errors
    ///
    /// A template cannot be rendered.
    pub(super) fn claims(&self, runs: Vec<Rc<FloorRun>>) -> anyhow::Result<Vec<FloorClaim>> {
        runs.into_iter().map(|run| Ok(FloorClaim { request: self.request(&run)?, run })).collect()
    }

    fn request(&self, run: &FloorRun) -> anyhow::Result<Vec<u8>> {
        let Some(templates) = &self.mail else {
            return Ok(serde_json::to_vec(&json!({ "user": run.user, "text": TEXT }))?);
        };
        let event: Value = serde_json::from_slice(&run.body)?;
        let data = event.get("data").cloned().unwrap_or_default();
        let email = data.pointer("/email_addresses/0/email_address").cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let user = context! { id => text(&data["id"]), first_name => text(&data["first_name"]), email => text(&email) };
        let values = context! { user => user };
        let render = |name| templates.get_template(name)?.render(&values);
        let mail = json!({
            "from": "Acme <hello@acme.test>", "to": [render("to")?], "subject": render("subject")?, "html": render("html")?,
        });
        Ok(serde_json::to_vec(&mail)?)
    }
}

//! `/lab`: the lab of `usher up`: mails as they arrived, requests with answers, and faults by button.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use usher_lab::Lab;
use usher_service::clock;

use super::{Shell, answer, answer_mail, show};
use crate::Console;
use crate::guard::{Visit, form};
use crate::mask::Masking;
use crate::model::{self, LabContent, LabDetail};
use crate::problem::ConsoleError;

#[derive(Template)]
#[template(path = "lab.html")]
struct LabPage {
    shell: Shell,
    detail: LabDetail,
    faults: Vec<(&'static str, &'static str)>,
    shown: Option<ShownMail>,
}

struct ShownMail {
    seq: u64,
    content: LabContent,
}

/// Address of the lab, and of the mail that is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LabAddress {
    mail: Option<u64>,
}

fn lab(console: &Console) -> Result<&Lab, ConsoleError> {
    let none =
        || ConsoleError::NotFound("no lab runs in this process: `usher up` has one, unless --no-lab is said".into());
    console.lab().ok_or_else(none)
}

pub(crate) async fn page(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    Query(asked): Query<LabAddress>,
) -> Response {
    let page = async {
        let lab = lab(&console)?;
        // Mails are content: only an operator sees whom they are for and what they say.
        let masking = if visit.may_act() { Masking::Shown } else { Masking::Masked };
        let detail = model::lab_detail(lab, masking, clock::now())?;
        let shown = asked.mail.filter(|_| visit.may_act());
        let shown = shown.and_then(|seq| Some(ShownMail { seq, content: model::lab_mail(lab, seq)? }));
        let faults = model::lab_faults().into_iter().map(|(name, words, _)| (name, words)).collect();
        Ok(show(&LabPage { shell: Shell::new(&console, &visit, "lab", "Lab"), detail, faults, shown }))
    };
    answer(&console, &visit, page.await)
}

pub(crate) async fn mail(State(console): State<Console>, Query(asked): Query<LabAddress>) -> Response {
    let page = async {
        let content = model::lab_mail(lab(&console)?, asked.mail.unwrap_or_default());
        let html = content.and_then(|content| content.html);
        let none = || ConsoleError::NotFound("the lab does not keep this mail any more".to_owned());
        html.ok_or_else(none)
    };
    answer_mail(page.await)
}

/// A fault to put in force.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FaultForm {
    provider: String,
    /// The name of a fault; empty to end those in force.
    fault: String,
}

pub(crate) async fn fault(State(console): State<Console>, Extension(visit): Extension<Visit>, body: Bytes) -> Response {
    let page = async {
        let lab = lab(&console)?;
        let FaultForm { provider, fault } = form(&body).unwrap_or_default();
        let bad = |error: String| ConsoleError::BadRequest(error);
        if fault.is_empty() {
            lab.end_fault(&provider).map_err(|error| bad(error.to_string()))?;
        } else {
            let known = model::lab_faults().into_iter().find(|(name, ..)| *name == fault);
            let (.., known) = known.ok_or_else(|| bad(format!("there is no fault {fault}")))?;
            lab.set_fault(&provider, known).map_err(|error| bad(error.to_string()))?;
        }
        Ok(Redirect::to(&Shell::new(&console, &visit, "lab", "").link("/lab", &[])).into_response())
    };
    answer(&console, &visit, page.await)
}

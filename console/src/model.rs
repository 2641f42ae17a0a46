//! The answers that pages and the API show, made of the store's views. Personal data in them is masked, unless the caller
//! asks for it by [`Masking::Shown`](crate::mask::Masking).

mod causes;
mod events;
mod flows;
mod lab;
mod mails;
mod overview;
mod person;
mod redrives;
mod runs;
mod selection;
mod standing;
mod times;
mod waterfall;

pub(crate) use causes::{CauseGroup, DeadLetterPage, DeadLetters};
pub(crate) use events::{EventDetail, EventList, EventListQuery, event_detail, event_list};
pub(crate) use flows::{FlowDetail, flow_detail};
pub(crate) use lab::{LabContent, LabDetail, faults as lab_faults, lab_detail, lab_mail};
pub(crate) use mails::{FlowMail, FlowMails, flow_mails};
pub(crate) use overview::{FlowLine, OpenMatter, OverviewAnswer, overview};
pub(crate) use person::{PersonDetail, person_detail};
pub(crate) use redrives::{
    REDRIVE_RUNS, REDRIVES, RedriveDetail, RedriveLine, redrive_detail, redrive_lines, redrive_list,
};
pub(crate) use runs::{RunDetail, RunStep, StepAttempt, pretty};
pub(crate) use selection::{AGES, DeadFilter, DeadSelection, pick_id};
pub(crate) use standing::{AccountLine, OverviewFigures};
pub(crate) use times::Moment;
pub(crate) use waterfall::{BarKind, Waterfall};

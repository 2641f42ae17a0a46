//! The answers that pages and the API show, made of the store's views. Personal data in them is masked, unless the caller
//! asks for it by [`Masking::Shown`](crate::mask::Masking).

mod causes;
mod events;
mod flows;
mod overview;
mod person;
mod runs;
mod times;

pub(crate) use causes::{CauseGroup, DeadLetters, DeadSelection};
pub(crate) use events::{EventDetail, EventList, EventListQuery, event_detail, event_list};
pub(crate) use flows::{FlowDetail, flow_detail};
pub(crate) use overview::{OpenMatter, OverviewAnswer, overview};
pub(crate) use person::{PersonDetail, person_detail};
pub(crate) use runs::{RunStep, pretty};
pub(crate) use times::Moment;

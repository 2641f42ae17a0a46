//! Payloads of the senders beside Clerk that have code of their own: Stripe, Nylas and Resend. The only code that knows
//! where they put what. Like `usher-clerk`, it reads leniently and partly, and is pure.

mod owner;

pub mod nylas;
pub mod resend;
pub mod samples;
pub mod stripe;

pub use owner::Owner;
use usher_proto::Source;

/// Returns the known types of a sender's events, without their source. `None` for a source that has no such list.
/// Senders add types, so one that is not listed may still be correct.
pub fn event_types(source: Source) -> Option<&'static [&'static str]> {
    match source {
        Source::Clerk => Some(&usher_clerk::event_types::EVENT_TYPES),
        Source::Stripe => Some(stripe::EVENT_TYPES),
        Source::Nylas => Some(nylas::EVENT_TYPES),
        Source::Resend => Some(resend::EVENT_TYPES),
        Source::Usher | Source::Schedule | Source::Sender(_) => None,
    }
}

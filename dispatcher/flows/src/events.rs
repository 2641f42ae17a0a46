//! Suggestions for misspelt types of the senders' events.

use usher_proto::Source;
use usher_senders::event_types;

use super::problem;

/// Returns the type of the source's events that is most similar to `word`, if any is similar.
pub(super) fn nearest(source: Source, word: &str) -> Option<&'static str> {
    problem::nearest(word, event_types(source).unwrap_or_default().iter().copied())
}

/// Returns the family of types, including its dot, that is most similar to `word`, if any is similar.
pub(super) fn nearest_family(source: Source, word: &str) -> Option<&'static str> {
    let types = event_types(source).unwrap_or_default().iter();
    problem::nearest(word, types.filter_map(|kind| kind.split_inclusive('.').next()))
}

/// The name of a sender as it is written in sentences.
pub(super) fn name(source: Source) -> &'static str {
    match source {
        Source::Clerk => "Clerk",
        Source::Stripe => "Stripe",
        Source::Nylas => "Nylas",
        Source::Resend => "Resend",
        Source::Usher | Source::Schedule | Source::Sender(_) => "Usher",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_type_is_close_to_the_one_that_is_meant() {
        assert_eq!(nearest(Source::Clerk, "user.create"), Some("user.created"));
        assert_eq!(nearest_family(Source::Clerk, "usr."), Some("user."));
        assert_eq!(nearest(Source::Stripe, "customer.subscription.create"), Some("customer.subscription.created"));
        assert_eq!(nearest_family(Source::Nylas, "messages."), Some("message."));
    }
}

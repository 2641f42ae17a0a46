//! Suggestions for misspelt types of Clerk's events.

use usher_clerk::event_types::{EVENT_TYPES, families};

use super::problem;

/// Returns the type that is most similar to `word`, if any is similar.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    problem::nearest(word, EVENT_TYPES)
}

/// Returns the family of types, including its dot, that is most similar to `word`, if any is similar.
pub(super) fn nearest_family(word: &str) -> Option<&'static str> {
    problem::nearest(word, families())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_type_is_close_to_the_one_that_is_meant() {
        assert_eq!(nearest("user.create"), Some("user.created"));
        assert_eq!(nearest_family("usr."), Some("user."));
    }
}

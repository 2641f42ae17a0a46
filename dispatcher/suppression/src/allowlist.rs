//! `USHER_DELIVER_ONLY_TO`: patterns of the only addresses that may be written to, for staging and the first
//! days in production.

use std::fmt;

use usher_proto::address::normal_form;
use usher_service::ConfigError;
use usher_service::options::Environment;

const VARIABLE: &str = "USHER_DELIVER_ONLY_TO";

/// Patterns of the only addresses that may be written to; without patterns every address is allowed. The patterns are
/// never printed, because they may be personal addresses.
#[derive(Clone, Default)]
pub struct RecipientAllowlist(Option<Vec<Pattern>>);

#[derive(Clone)]
struct Pattern {
    local: String,
    domain: String,
}

impl fmt::Debug for RecipientAllowlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientAllowlist({:?} patterns)", self.0.as_ref().map(Vec::len))
    }
}

impl RecipientAllowlist {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        environment.get(VARIABLE)?.map_or_else(|| Ok(Self::default()), |text| Self::parse(&text))
    }

    /// Parses patterns separated by commas or whitespace. A `*` matches any text, but never extends across the `@`.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let bad = |why: String| {
            ConfigError::new(VARIABLE, format!("{why}; it is addresses such as \"*@acme.com dana@work.test\""))
        };
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let pattern = |(index, word): (usize, &str)| {
            let word = normal_form(word);
            let parts = word.split_once('@');
            let parts =
                parts.filter(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
            let (local, domain) = parts.ok_or_else(|| bad(format!("pattern {} is no address", index + 1)))?;
            Ok(Pattern { local: local.to_owned(), domain: domain.to_owned() })
        };
        let patterns: Vec<Pattern> = words.enumerate().map(pattern).collect::<Result<_, _>>()?;
        if patterns.is_empty() { Err(bad("names nobody".to_owned())) } else { Ok(Self(Some(patterns))) }
    }

    /// True if patterns are configured, so that some addresses may not be written to.
    pub const fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// True if an address may be written to. Addresses are compared in their normal form.
    pub(super) fn allows(&self, address: &str) -> bool {
        let Some(patterns) = &self.0 else { return true };
        let address = normal_form(address);
        // Local part and domain are matched separately, so that no `*` extends across the `@`.
        address.rsplit_once('@').is_some_and(|(local, domain)| {
            patterns.iter().any(|pattern| matches(&pattern.local, local) && matches(&pattern.domain, domain))
        })
    }
}

/// True if a text matches a pattern, in which `*` stands for any text, including none.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    // `split` always returns at least one part.
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_be_written_to_unless_patterns_are_given() {
        let allowlist = RecipientAllowlist::from_environment(&Environment::from_vars([])).expect("nothing is given");
        assert!(!allowlist.is_given() && allowlist.allows("a@b.test"));
    }

    #[test]
    fn patterns_are_whole_addresses_in_any_case() {
        let allowlist = RecipientAllowlist::parse("*@Acme.com,  dana@work.test\nqa+*@*.lab.test *@*.M\u{fc}nchen.test")
            .expect("patterns");
        for address in [
            "a@acme.com",
            "A@ACME.COM",
            "Dana@work.test",
            "qa+1@eu.lab.test",
            "a@post.m\u{fc}nchen.test",
            "a@post.xn--mnchen-3ya.test",
        ] {
            assert!(allowlist.allows(address), "{address}");
        }
        for address in [
            "a@acme.com.evil.test",
            "a@notacme.com",
            "xdana@work.test",
            "dana@work.testx",
            "qa@eu.lab.test",
            "qa+1@lab.test",
            "",
        ] {
            assert!(!allowlist.allows(address), "{address}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text_and_no_letter_counts_twice() {
        for (pattern, text, expected) in [
            ("a*a", "aa", true),
            ("a*a", "a", false),
            ("*", "", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*b", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_without_repeating_it() {
        for (text, expected) in
            [(" , ", "names nobody"), ("*", "pattern 1"), ("*@a.test dana", "pattern 2"), ("a@b@c", "pattern 1")]
        {
            let error = RecipientAllowlist::parse(text).expect_err(expected).to_string();
            assert!(error.starts_with(VARIABLE) && error.contains(expected) && !error.contains("dana "), "{error}");
        }
    }
}

//! The filter [`FILTER`] for names in mails. A person who signs up chooses both the name and the address. Such a name
//! can therefore be an advertisement with a link, sent under the operator's name to people who never requested it. The
//! filter lets text through only if it looks like a name; otherwise the greeting contains no name. All templates use
//! this one rule.

use minijinja::Value;

/// The filter's name: `{{ user.first_name | as_name }}`.
pub(super) const FILTER: &str = "as_name";
/// Maximum length of a name in characters.
const LONGEST: usize = 40;
/// Maximum number of words in a name.
const MOST_WORDS: usize = 5;
/// Maximum number of digits in a name. A name may contain a number, but not a price or a telephone number.
const MOST_DIGITS: usize = 2;
/// Characters of links, addresses, mark-up, prices and slogans, which do not occur in names.
const NEVER: &str = "/\\:;@#$%&=?!*+|~^_<>[]{}()\"\u{a3}\u{20ac}\u{a5}\u{2044}\u{2215}\u{ff0f}\u{ff1a}\u{ff20}";
/// Separators of a domain's labels, in ASCII and for IDNA (RFC 3490, 3.1), and characters that look like them.
const DOTS: [char; 5] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}', '\u{2024}'];

/// Returns the text in one line if it can be a name; otherwise, and for null and other types, none.
pub(super) fn as_name(value: &Value) -> Value {
    let text = value.as_str().unwrap_or_default();
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let name = words.join(" ");
    let is_name = !name.is_empty()
        && name.chars().count() <= LONGEST
        && words.len() <= MOST_WORDS
        && name.chars().filter(|c| c.is_numeric()).count() <= MOST_DIGITS
        && !name.contains(|c: char| NEVER.contains(c))
        && !words.iter().any(|word| is_domain(word));
    if is_name { Value::from(name) } else { Value::from(()) }
}

/// True if a word can be read as a host name, which mail programs turn into a link. Initials are not host names.
fn is_domain(word: &str) -> bool {
    let labels: Vec<&str> = word.split(DOTS).collect();
    let last = labels.iter().rev().find(|label| !label.is_empty());
    let top = last.is_some_and(|label| label.chars().filter(|c| c.is_alphanumeric()).count() > 1);
    top && labels.iter().filter(|label| !label.is_empty()).count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_the_world_are_names() {
        for name in [
            "Dana",
            "Zo\u{eb}",
            "Jean-Luc",
            "O'Neil",
            "J. R. R.",
            "J.R.",
            "St. John",
            "Ana Mar\u{ed}a de la Cruz",
            "\u{5c71}\u{7530}\u{592a}\u{90ce}",
            "\u{645}\u{62d}\u{645}\u{62f}",
            "\u{928}\u{92e}\u{94d}\u{930}\u{924}\u{93e}",
            "Dana 2",
            "Mc\u{b7}Gee",
        ] {
            assert_eq!(as_name(&Value::from(name)), Value::from(name), "{name}");
        }
        assert_eq!(as_name(&Value::from(" Dana\n Doe ")), Value::from("Dana Doe"));
    }

    #[test]
    fn what_advertises_is_no_name() {
        for text in [
            "Win $500 at https://evil.test",
            "https://evil.test",
            "evil.test",
            "visit evil.test now",
            "www.evil.test",
            "EVIL.TEST.",
            "evil\u{3002}test",
            "evil\u{ff0e}test",
            "evil\u{2024}test",
            "m\u{fc}nchen.test",
            "eve@evil.test",
            "evil(dot)test",
            "evil[.]test",
            "evil\u{ff0f}x",
            "<img src=x onerror=alert(1)>",
            "Call 555 0123",
            "You have won a prize today",
            "Claim now!",
            "a\u{20ac}",
            &"a".repeat(41),
            "",
            " \n",
        ] {
            assert_eq!(as_name(&Value::from(text)), Value::from(()), "{text}");
        }
        for other in [Value::UNDEFINED, Value::from(()), Value::from(7), Value::from(vec!["Dana"])] {
            assert_eq!(as_name(&other), Value::from(()), "{other:?}");
        }
    }
}

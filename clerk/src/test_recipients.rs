//! Clerk's test addresses and test phone numbers. Clerk accepts a code for them and sends nothing; Usher sends nothing
//! to them either.
//!
//! Facts: clerk.com/docs, "Test emails and phones": any address with the subaddress `+clerk_test`, and the fictional
//! numbers +1 (XXX) 555-0100 to 555-0199. The documentation does not mention a suffix after `+clerk_test`; it is
//! accepted here because people write such addresses.

use usher_proto::address::local_part;

const SUBADDRESS: &str = "+clerk_test";
/// The digits of a test number between its area code and its last two digits.
const EXCHANGE: &str = "55501";

/// True if an address is a test address: in any spelling, with any suffix, on any domain.
pub fn is_test_address(address: &str) -> bool {
    local_part(address).is_some_and(|local| local.contains(SUBADDRESS))
}

/// True if a phone number is a test number, in any grouping, with or without its country code.
pub fn is_test_number(number: &str) -> bool {
    let Some(start) = number.find(|c| digit(c).is_some() || is_plus(c)) else { return false };
    // An extension is not part of the number.
    let number = number[start..].split([';', '#', ',', 'x', 'X']).next().unwrap_or_default();
    let digits: String = number.chars().filter_map(digit).collect();
    // The country code follows a plus sign or the prefix of an international call, 00 or (within the North American
    // numbering plan itself) 011.
    let called = if number.starts_with(is_plus) {
        Some(digits.as_str())
    } else {
        digits.strip_prefix("011").or_else(|| digits.strip_prefix("00"))
    };
    let national = match called {
        Some(international) => international.strip_prefix('1'),
        None if digits.len() == 11 => digits.strip_prefix('1'),
        None => Some(digits.as_str()),
    };
    // No area code begins with 0 or 1.
    let is_area = |number: &str| number.starts_with(|c| ('2'..='9').contains(&c));
    national.is_some_and(|number| number.len() == 10 && is_area(number) && number[3..].starts_with(EXCHANGE))
}

const fn is_plus(c: char) -> bool {
    matches!(c, '+' | '\u{ff0b}')
}

/// Returns the ASCII digit of a digit, which may be in the full-width form of East Asian keyboards.
fn digit(c: char) -> Option<char> {
    let ascii = match u32::from(c) {
        wide @ 0xff10..=0xff19 => char::from_u32(wide - 0xff10 + u32::from('0'))?,
        _ => c,
    };
    ascii.is_ascii_digit().then_some(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_tests_may_have_a_suffix_and_any_domain() {
        for address in [
            "dana+clerk_test@work.test",
            "Dana+CLERK_TEST@Work.test",
            "dana+clerk_test_7@work.test",
            "dana+clerk_test+x@work.test",
            "dana+x+clerk_test@work.test",
            "dana+clerk_test-2026.11@m\u{fc}nchen.test",
            "\"dana+clerk_test\"@work.test",
        ] {
            assert!(is_test_address(address), "{address}");
        }
        for address in ["clerk_test@work.test", "dana@clerk_test.test", "dana+clerk@work.test", "dana+clerk_test", ""] {
            assert!(!is_test_address(address), "{address}");
        }
    }

    #[test]
    fn a_number_for_tests_is_one_in_every_spelling() {
        for number in [
            "+12015550123",
            "+1 (201) 555-0100",
            "+1-201-555-0199",
            "1.201.555.0150",
            "(201) 555 0123",
            "2015550123",
            "001 201 555 0123",
            "011 1 201 555 0123",
            "tel:+1-201-555-0123",
            "+1\u{a0}201\u{2011}555\u{2011}0123",
            "\u{ff0b}\u{ff11}\u{ff12}\u{ff10}\u{ff11}\u{ff15}\u{ff15}\u{ff15}\u{ff10}\u{ff11}\u{ff12}\u{ff13}",
            "+12015550123;ext=7",
            "+1 201 555 0123 x7",
        ] {
            assert!(is_test_number(number), "{number}");
        }
        for number in [
            "+12015550200",
            "+12015550099",
            "+12015551123",
            "+442015550123",
            "+2015550123",
            "030 555 0123",
            "+4915550123456",
            "+15550123",
            "+1201555012",
            "+120155501234",
            "",
        ] {
            assert!(!is_test_number(number), "{number}");
        }
    }
}

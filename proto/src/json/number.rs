//! Numbers as they were sent, and the whole ones among them.

use serde_json::{Number, Value};

use super::scan;

/// Beyond this a double does not tell every whole number from its neighbours.
const EXACT_IN_A_DOUBLE: f64 = 9_007_199_254_740_992.0;

/// A whole number that was read out of a number or of the text of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// The number, rounded down.
    pub value: i64,
    /// True if it says all that was sent.
    pub is_exact: bool,
}

/// The whole number that is written so in JSON: `7`, `7.0`, `7e0`; of `7.9` it is 7, and inexact. None where the text
/// is no number, or beyond 64 bits.
pub fn whole_number(text: &str) -> Option<Whole> {
    if let Ok(value) = text.parse() {
        let plain = !text.starts_with('+');
        return plain.then_some(Whole { value, is_exact: true });
    }
    if scan::number_end(text.as_bytes(), 0) != Some(text.len()) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    let down = number.floor();
    // i64::MAX has no double; the one above it does.
    if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&down) {
        return None;
    }
    let is_exact = down == number && down.abs() < EXACT_IN_A_DOUBLE;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the bounds")]
    let value = down as i64;
    Some(Whole { value, is_exact })
}

/// The number where serde_json has one, else its digits.
pub(super) fn to_value(digits: &str) -> Value {
    let whole = digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from));
    // Zero has a sign as a double alone.
    let whole = whole.ok().filter(|_| digits != "-0");
    let number = whole.or_else(|| Number::from_f64(digits.parse().ok()?));
    number.map_or_else(|| Value::String(digits.to_owned()), Value::Number)
}

//! Numbers as they were sent, and the integers among them.

use serde_json::{Number, Value};

use super::scan;

/// 2^53. From this magnitude on, a double cannot represent every integer.
const EXACT_IN_A_DOUBLE: f64 = 9_007_199_254_740_992.0;

/// An integer that was read from a number or from the text of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// The integer, rounded down.
    pub value: i64,
    /// True if the sent number equals `value`, without rounding.
    pub is_exact: bool,
}

/// Parses an integer in any JSON spelling: `7`, `7.0`, `7e0`. `7.9` yields 7, marked as inexact. `None` if the text is
/// not a number or the value does not fit 64 bits.
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
    // A double cannot represent `i64::MAX`; the next double above it is 2^63.
    if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&down) {
        return None;
    }
    let is_exact = down == number && down.abs() < EXACT_IN_A_DOUBLE;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the bounds")]
    let value = down as i64;
    Some(Whole { value, is_exact })
}

/// Returns the number if `serde_json` can represent it, else a string of its digits.
pub(super) fn to_value(digits: &str) -> Value {
    let whole = digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from));
    // Only a double has a negative zero.
    let whole = whole.ok().filter(|_| digits != "-0");
    let number = whole.or_else(|| Number::from_f64(digits.parse().ok()?));
    number.map_or_else(|| Value::String(digits.to_owned()), Value::Number)
}

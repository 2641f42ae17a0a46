//! The position of an event in a distributed trace, as the header `traceparent` carries it.
//!
//! Source: w3.org/TR/trace-context (version 00 of the header).

use std::fmt;
use std::str::FromStr;

/// A trace and the span in it that is the parent of what happens next. Both ids are other than zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// The text is not a `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no traceparent of version 00: it is 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case, with ids other than zero"
)]
pub struct InvalidTraceParent;

impl TraceParent {
    /// Creates a parent from its parts. `None` if an id is zero, which stands for no trace.
    pub const fn new(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        if trace_id == 0 || span_id == 0 { None } else { Some(Self { trace_id, span_id, flags }) }
    }

    /// The id of the trace.
    pub const fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The id of the parent span.
    pub const fn span_id(self) -> u64 {
        self.span_id
    }

    /// The flags: bit 0 is set if the caller records the trace.
    pub const fn flags(self) -> u8 {
        self.flags
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        /// Returns the number of this many digits. `from_str_radix` alone would accept a sign, too.
        fn number(digits: Option<&str>, count: usize) -> Option<u128> {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let digits = digits.filter(|digits| digits.len() == count && digits.bytes().all(is_digit))?;
            u128::from_str_radix(digits, 16).ok()
        }
        let mut parts = text.strip_prefix("00-").ok_or(InvalidTraceParent)?.split('-');
        let mut next = |count| number(parts.next(), count).ok_or(InvalidTraceParent);
        let trace_id = next(32)?;
        let span_id = u64::try_from(next(16)?).map_err(|_| InvalidTraceParent)?;
        let flags = u8::try_from(next(2)?).map_err(|_| InvalidTraceParent)?;
        if parts.next().is_some() {
            return Err(InvalidTraceParent);
        }
        Self::new(trace_id, span_id, flags).ok_or(InvalidTraceParent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid_reads_back_and_nothing_else_is_read() {
        for valid in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000001-0000000000000001-00",
            "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-ff",
        ] {
            assert_eq!(valid.parse::<TraceParent>().map(|parent| parent.to_string()), Ok(valid.to_owned()));
        }
        for invalid in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47366-0f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(invalid.parse::<TraceParent>(), Err(InvalidTraceParent), "{invalid:?}");
        }
    }
}

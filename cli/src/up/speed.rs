//! The speed of the clock of waits. A wait is stored with the time at which it ends, by the real clock, so a start with another
//! speed changes only waits that begin after it.

/// The speed at which a day takes a day.
pub(super) const USUAL: u32 = 1;
/// Highest speed. At this one a wait of a year takes half a minute.
const MAX: u32 = 1_000_000;

/// Parses a speed.
pub(super) fn parse(text: &str) -> Result<u32, String> {
    let speed = text.parse().ok().filter(|speed| (USUAL..=MAX).contains(speed));
    speed.ok_or_else(|| format!("a whole number from {USUAL} to {MAX}, such as 10000"))
}

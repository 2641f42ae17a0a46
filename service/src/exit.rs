//! Exit codes, following the convention of `sysexits.h`.

use std::process::ExitCode;

use usher_proto::visible;

use crate::{ConfigError, best_effort};

/// The command succeeded.
pub const OK: u8 = 0;
/// The command was valid but failed.
pub const FAILURE: u8 = 1;
/// An option, a setting or a flow file is invalid (`EX_USAGE`).
pub const USAGE: u8 = 64;

/// Returns the error's text followed by those of its sources.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes(error) {
        let text = cause.to_string();
        // Some libraries include the text of the source in their own text; it is printed once.
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

/// Returns the error and its sources, one after the other.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| cause.source())
}

/// Prints the error with its whole chain of sources to standard error and returns the exit code: [`USAGE`] if the chain
/// contains a [`ConfigError`], else [`FAILURE`].
pub fn report(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    // The text may contain input from outside, so control characters are escaped. Line feeds stay, because
    // errors in several files are printed on several lines. If the text cannot be written, the exit code still
    // reports the failure.
    best_effort::stderr().line(&format!("error: {}", visible::lines(&chain(error))));
    ExitCode::from(if causes(error).any(|cause| cause.is::<ConfigError>()) { USAGE } else { FAILURE })
}

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

/// Prints the error with its whole chain of sources to standard error and returns the exit code: [`USAGE`] if the chain
/// contains a [`ConfigError`], else [`FAILURE`].
pub fn report(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut chain = vec![error.to_string()];
    let mut is_config_error = error.is::<ConfigError>();
    let mut source = error.source();
    while let Some(cause) = source {
        is_config_error |= cause.is::<ConfigError>();
        let text = cause.to_string();
        // Some libraries include the text of the source in their own text; it is printed once.
        if chain.last().is_none_or(|last| !last.contains(&text)) {
            chain.push(text);
        }
        source = cause.source();
    }
    // The text may contain input from outside, so control characters are escaped. Line feeds stay, because
    // errors in several files are printed on several lines. If the text cannot be written, the exit code still
    // reports the failure.
    best_effort::stderr().line(&format!("error: {}", visible::lines(&chain.join(": "))));
    ExitCode::from(if is_config_error { USAGE } else { FAILURE })
}

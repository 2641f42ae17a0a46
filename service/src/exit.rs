//! Exit codes, by the convention of `sysexits.h`.

use std::process::ExitCode;

use crate::{ConfigError, unfailing, visible};

/// Everything went as asked.
pub const OK: u8 = 0;
/// It failed while doing what was asked.
pub const FAILURE: u8 = 1;
/// It was asked wrongly: an option, a setting or a flow file is not right (`EX_USAGE`).
pub const USAGE: u8 = 64;

/// Prints the error, whole chain, to standard error and turns it into the exit code: [`USAGE`] where a [`ConfigError`] is
/// at its root, else [`FAILURE`].
pub fn report(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut chain = vec![error.to_string()];
    let mut bad_setting = error.is::<ConfigError>();
    let mut source = error.source();
    while let Some(cause) = source {
        bad_setting |= cause.is::<ConfigError>();
        let text = cause.to_string();
        // Some libraries repeat the cause in their own text; once is enough.
        if chain.last().is_none_or(|last| !last.contains(&text)) {
            chain.push(text);
        }
        source = cause.source();
    }
    // It may repeat what came from outside; what is wrong with several files stands on several lines. The exit code tells the
    // same to whoever cannot read it.
    unfailing::stderr().line(&format!("error: {}", visible::lines(&chain.join(": "))));
    ExitCode::from(if bad_setting { USAGE } else { FAILURE })
}

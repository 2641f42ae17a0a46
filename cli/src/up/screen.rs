//! The screen of `usher up` once it is ready: every address, and what to try first.

use std::path::Path;

use super::DATA;
use crate::data::Addresses;

/// The facts on the screen.
pub(super) struct Screen<'a> {
    pub(super) addresses: &'a Addresses,
    /// The address of the console, or the reason for which it is closed.
    pub(super) console: &'a str,
    /// The signing secret that was generated here; `None` if one is configured, which is not repeated.
    pub(super) secret: Option<&'a str>,
    /// Names of the flows, and where their files are.
    pub(super) flows: &'a str,
    /// Speed of the clock of waits.
    pub(super) speed: u32,
    pub(super) data: &'a Path,
}

impl Screen<'_> {
    /// Returns the lines of the screen.
    pub(super) fn lines(&self) -> Vec<String> {
        let Addresses { listen, admin, lab } = self.addresses;
        let default = self.data == Path::new(DATA);
        let at = if default { String::new() } else { format!(" --data {}", self.data.display()) };
        let mut lines = vec![format!("usher is ready: webhooks on http://{listen}/webhooks/clerk")];
        let mut row = |name: &str, text: &str| lines.push(format!("  {name:<15} {text}"));
        row("signing secret", self.secret.unwrap_or("as configured"));
        row("console", self.console);
        if let Some(lab) = lab {
            row("lab", &format!("http://{lab}/effects (doubles of every destination: nothing real is reached)"));
        }
        row("health, metrics", &format!("http://{admin}/readyz, http://{admin}/metrics"));
        row("flows", self.flows);
        if self.speed > 1 {
            row("waits", &format!("pass {} times as fast; those that have begun before keep their end", self.speed));
        }
        row("data", &self.data.display().to_string());
        row("try", &format!("usher send user.created{at}"));
        row("and then", &format!("usher runs{at}"));
        lines
    }
}

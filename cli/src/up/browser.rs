//! Opening the console in the browser. A machine without one is no error: the address stands on the screen.

use std::process::Stdio;

use tokio::process::Command;

use crate::output;

/// The programs that open an address with what the user has chosen for it, in the order in which they are tried.
const OPENERS: &[&str] = if cfg!(target_os = "macos") { &["open"] } else { &["xdg-open", "wslview", "gio"] };

/// Opens `address` in the browser, in the background. A hint is printed if no browser opens.
pub(super) fn open(address: String) {
    tokio::spawn(async move {
        for opener in OPENERS {
            // `gio` opens an address by a subcommand.
            let subcommand = (*opener == "gio").then_some("open");
            let mut command = Command::new(opener);
            command.args(subcommand).arg(&address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // A program that is missing or fails leaves it to the next.
            if command.status().await.is_ok_and(|status| status.success()) {
                return;
            }
        }
        output::hint(&format!("no browser could be opened ({}): open {address} yourself", OPENERS.join(", ")));
    });
}

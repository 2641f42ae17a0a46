//! The turn of a batch's writes, which comes after its changes. Until then what the writes need is read and made.

use tokio::sync::SetOnce;

/// True once the changes are written, false if they never will be.
#[derive(Debug, Default)]
pub(super) struct Turn(SetOnce<bool>);

impl Turn {
    /// Writes the changes, after which the turn comes. It never does if the process stops before they are written.
    pub(super) async fn after(&self, changes: impl Future<Output = Option<()>>) -> Option<()> {
        let written = changes.await;
        // This is the only place that sets it.
        let _ = self.0.set(written.is_some());
        written
    }

    /// Runs the writes, but not beyond the moment at which it is known that their turn never comes.
    pub(super) async fn run(&self, writes: impl Future<Output = Option<()>>) -> Option<()> {
        tokio::select! {
            biased;
            () = self.becomes(false) => None,
            written = writes => written,
        }
    }

    /// Returns when the turn has come.
    pub(super) async fn come(&self) {
        self.becomes(true).await;
    }

    async fn becomes(&self, written: bool) {
        if *self.0.wait().await != written {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_turn_comes_after_the_changes_and_never_if_they_are_not_written() {
        for written in [Some(()), None] {
            let turn = Turn::default();
            let mut writes = pin!(turn.run(async {
                turn.come().await;
                Some(())
            }));
            assert_eq!(writes.as_mut().now_or_never(), None, "nothing is written yet");
            assert_eq!(turn.after(async { written }).await, written);
            assert_eq!(writes.now_or_never(), Some(written));
        }
    }
}

//! A dispatcher replica in this process, in its own runtime: dropping the runtime simulates a crash.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_dispatcher::{Dispatcher, DispatcherConfig, DispatcherError};
use usher_eventlog::Log;
use usher_service::Readiness;
use usher_store::RunStore;

use crate::test_env::SOON;

/// Maximum time for a crash: calls to the store or the log that are in flight cannot be cancelled.
const CRASH_DEADLINE: Duration = Duration::from_secs(15);

/// A replica. Crashes when dropped.
pub struct Replica {
    runtime: Option<Runtime>,
    running: JoinHandle<Result<(), DispatcherError>>,
    readiness: Readiness,
    stop: CancellationToken,
}

impl Replica {
    /// Starts a replica on this log, with a wrapped store.
    pub fn start(
        config: DispatcherConfig,
        log: Arc<dyn Log>,
        around: impl FnOnce(Arc<dyn RunStore>) -> Arc<dyn RunStore> + Send + 'static,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let readiness = Readiness::needing(Dispatcher::needs(&config));
        let dispatcher = Dispatcher::new(config, log, readiness.clone(), &Registry::new()).expect("a dispatcher");
        let stop = CancellationToken::new();
        let running = runtime.spawn(dispatcher.with_run_store(around).run(stop.clone()));
        Self { runtime: Some(runtime), running, readiness, stop }
    }

    /// Waits until the replica is ready.
    pub async fn ready(&mut self) {
        tokio::select! {
            () = self.readiness.ready() => {}
            ended = &mut self.running => panic!("it ended before it was ready: {ended:?}"),
            () = tokio::time::sleep(SOON) => panic!("it is not ready after {SOON:?}"),
        }
    }

    /// Stops the replica and waits until it has written its last commits.
    pub async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.running).await.expect("no panic").expect("a good end");
        self.crash().await;
    }

    /// Stops the replica between two instructions. It does nothing more after this returns.
    pub async fn crash(mut self) {
        let runtime = self.runtime.take().expect("it has not crashed");
        tokio::task::spawn_blocking(|| runtime.shutdown_timeout(CRASH_DEADLINE)).await.expect("it is gone");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

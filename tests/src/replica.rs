//! A replica of the dispatcher in this process, in a runtime of its own: dropping the runtime is its crash.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_dispatcher::store::Store;
use usher_dispatcher::{Config, Dispatcher};
use usher_eventlog::Log;
use usher_service::Readiness;

use crate::test_env::SOON;

/// How long a crash may take: what has left for the store or the log does not come back.
const CRASH_DEADLINE: Duration = Duration::from_secs(15);

/// A replica. Crashes when dropped.
pub struct Replica {
    runtime: Option<Runtime>,
    running: JoinHandle<anyhow::Result<()>>,
    readiness: Readiness,
    stop: CancellationToken,
}

impl Replica {
    /// Starts one on this log, with something around its store.
    pub fn start(
        config: Config,
        log: Arc<dyn Log>,
        around: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send + 'static,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let readiness = Readiness::needing(Dispatcher::needs(&config));
        let dispatcher = Dispatcher::new(config, log, readiness.clone(), &Registry::new()).expect("a dispatcher");
        let stop = CancellationToken::new();
        let running = runtime.spawn(dispatcher.with_store(around).run(stop.clone()));
        Self { runtime: Some(runtime), running, readiness, stop }
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) {
        tokio::select! {
            () = self.readiness.ready() => {}
            ended = &mut self.running => panic!("it ended before it was ready: {ended:?}"),
            () = tokio::time::sleep(SOON) => panic!("it is not ready after {SOON:?}"),
        }
    }

    /// Asks it to stop, and waits until it has: its last commits are written.
    pub async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.running).await.expect("no panic").expect("a good end");
        self.crash().await;
    }

    /// It is gone between two instructions, and has done nothing more when this returns.
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

//! Failures that end the dispatcher.

use usher_engine::start::CannotStart;
use usher_eventlog::LogError;
use usher_proto::Partition;
use usher_service::ConfigError;
use usher_store::StoreError;

/// The dispatcher cannot start, or a flow cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    /// A setting is wrong, or names a dependency that only a person can mend.
    #[error("{0}")]
    Setting(#[from] ConfigError),
    /// The database of this setting cannot be opened.
    #[error("{setting}")]
    Database {
        /// The setting's name.
        setting: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store fails.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The log fails.
    #[error("{0}")]
    Log(#[from] LogError),
    /// A metric has the name of another one.
    #[error("{0}")]
    Metrics(#[from] prometheus::Error),
    /// The source of a flow cannot be stored.
    #[error("the source of flow {flow} cannot be stored")]
    FlowSource {
        /// The flow.
        flow: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// A partition cannot be started without losing or inventing events.
    #[error("flow {flow}, partition {partition}: {problem}")]
    CannotStart {
        /// The flow.
        flow: String,
        /// The partition.
        partition: Partition,
        /// The problem, with the ways on.
        problem: CannotStart,
    },
    /// The log has ended the subscription of a flow.
    #[error("flow {flow}")]
    Subscription {
        /// The flow.
        flow: String,
        /// The cause.
        source: LogError,
    },
    /// The subscription of a flow has ended without an error.
    #[error("the subscription of flow {0} has ended")]
    SubscriptionEnded(String),
    /// A task of a flow has panicked.
    #[error("a task of flow {flow} failed: {source}")]
    Task {
        /// The flow.
        flow: String,
        /// The cause.
        source: tokio::task::JoinError,
    },
    /// The task that runs a flow has panicked.
    #[error("a flow's task has failed: {0}")]
    FlowTask(#[source] tokio::task::JoinError),
}

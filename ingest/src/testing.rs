//! Shared by the tests of ingest: a log, and a configuration.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use clap::Parser as _;
use usher_eventlog::{AppendError, Log, LogError, Position, Subscription, TopicSpec, Watermarks};
use usher_proto::{Event, Key, Offset, Partition, Record};
use usher_service::options::Environment;

use crate::IngestConfig;
use crate::config::IngestArguments;

/// The first of Svix's published examples.
pub(crate) const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(crate) fn config(environment: &Environment) -> IngestConfig {
    let arguments = IngestArguments::parse_from(["ingest", "--log", "kafka://127.0.0.1:1"]);
    IngestConfig::new(arguments, environment).expect("a good configuration")
}

/// A log that stores records in memory while it is available.
#[derive(Default)]
pub(crate) struct Notebook {
    pub(crate) away: AtomicBool,
    records: Mutex<Vec<Record>>,
}

fn away<T>() -> Result<T, LogError> {
    Err(LogError::Unavailable("nobody reads here".into()))
}

#[async_trait]
impl Log for Notebook {
    async fn ensure(&self, _: &[TopicSpec]) -> Result<(), LogError> {
        Ok(())
    }

    async fn append(&self, _: &TopicSpec, record: Record) -> Result<Position, AppendError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(AppendError::Unavailable("away".into()));
        }
        tracing::error!("record appended");
        self.records.lock().expect("no panic while it is held").push(record);
        Ok(Position { partition: Partition(0), offset: Offset(0) })
    }

    async fn erase(&self, _: &TopicSpec, _: &Key) -> Result<Position, AppendError> {
        Err(AppendError::Unavailable("nothing is erased here".into()))
    }

    async fn subscribe(&self, _: &str, _: &str) -> Result<Subscription, LogError> {
        away()
    }

    async fn watermarks(&self, _: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
        away()
    }

    async fn offsets_at(&self, _: &str, _: usher_proto::Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError> {
        unreachable!("ingest only appends")
    }

    async fn committed(&self, _: &str, _: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
        unreachable!("ingest only appends")
    }

    async fn read(&self, _: &str, _: Partition, _: Offset) -> Result<Option<Record>, LogError> {
        away()
    }

    fn scan(&self, _: &str) -> Result<Box<dyn usher_eventlog::Scanner>, LogError> {
        away()
    }

    async fn check(&self) -> Result<(), LogError> {
        Ok(())
    }

    async fn flush(&self) {}
}

impl Notebook {
    pub(crate) fn events(&self) -> Vec<Event> {
        let records = self.records.lock().expect("no panic while it is held");
        records.iter().map(|record| Event::from_record(record).expect("an event")).collect()
    }
}

//! The topics of one log: created or checked before any read or write, and checked again while the log runs.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use usher_proto::{Offset, Partition};
use usher_service::retry::{Backoff, Jitter, RetryLimit, retry};

use super::config::Settings;
use super::librdkafka_log::QueryContext;
use super::query::WatermarkQuery;
use super::{QUESTION_DEADLINE, audit, blocking, unavailable};
use crate::topic::BATCH_ROOM;
use crate::{
    Creation, LogError, MAX_RECORD, Position, RETENTION, Retention, Severity, TopicProblem, TopicSpec, TopicState,
};

/// Kafka's replication factor for "the default of the cluster".
const CLUSTER_DEFAULT: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// Time for topics that were just created to be described by the brokers.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// Pauses between two of these checks.
const BETWEEN_LOOKS: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_millis(400), jitter: Jitter::Equal };
/// Interval between reads of the topics' settings.
const AUDIT_EVERY: Duration = Duration::from_secs(30);

type Admin = AdminClient<QueryContext>;

/// A client for a few requests. None is kept: each has a thread that polls ten times a second, beside those of librdkafka.
struct TemporaryAdmin(Option<Arc<Admin>>);

impl TemporaryAdmin {
    fn new(settings: &Settings) -> Result<Self, LogError> {
        let made = settings.admin().create_with_context::<_, Admin>(QueryContext(settings.logger()));
        made.map(|admin| Self(Some(Arc::new(admin)))).map_err(|error| LogError::configuration(&error))
    }

    fn get(&self) -> Result<&Arc<Admin>, LogError> {
        self.0.as_ref().ok_or_else(|| unavailable("the client has ended"))
    }
}

impl Drop for TemporaryAdmin {
    fn drop(&mut self) {
        let admin = self.0.take();
        // On a thread of its own, because a client may take a while to end. Without one it ends here.
        let _ = std::thread::Builder::new().name("log-admin-ends".into()).spawn(move || drop(admin));
    }
}

/// State of the topics that were ensured.
#[derive(Default)]
pub(super) struct TopicWatch {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Name of the first ensured topic, on which a check reports.
    first: Option<String>,
    topics: BTreeMap<String, Topic>,
    audited_at: Option<Instant>,
}

struct Topic {
    spec: TopicSpec,
    /// State by the settings of the topic alone.
    settings: TopicState,
    /// Number of partitions.
    partitions: i32,
    exists: bool,
    /// True if the topic once held more than it does. It stays set until the process ends, because an operator
    /// has to investigate.
    replaced: bool,
    /// Highest end seen of each partition.
    ends: BTreeMap<Partition, Offset>,
    /// Problems that have been logged.
    told: Vec<TopicProblem>,
}

impl Topic {
    fn state(&self) -> TopicState {
        let mut state = self.settings.clone();
        if !self.exists {
            state.problems.push(TopicProblem::Missing);
        }
        if self.replaced {
            state.problems.push(TopicProblem::Replaced);
        }
        let found = self.partitions;
        let wanted = self.spec.partitions;
        if found > wanted {
            state.problems.push(TopicProblem::MorePartitions { found, wanted });
        }
        state
    }

    /// Logs one line for each new problem, and one for each that is gone.
    fn tell(&mut self) {
        let topic = &self.spec.name;
        let found = self.state().problems;
        for problem in found.iter().filter(|problem| !self.told.contains(problem)) {
            match problem.severity() {
                Severity::Warn => tracing::warn!(topic, problem = problem.label(), "topic {topic} {problem}"),
                Severity::NotReady | Severity::Refuse => {
                    tracing::error!(topic, problem = problem.label(), "topic {topic} {problem}");
                }
            }
        }
        let stays = |gone: &&TopicProblem| found.iter().all(|problem| problem.label() != gone.label());
        for gone in self.told.iter().filter(stays) {
            tracing::info!(topic, problem = gone.label(), "topic problem resolved");
        }
        self.told = found;
    }
}

impl TopicWatch {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state of a topic as of its last check.
    pub(super) fn state(&self, topic: &str) -> TopicState {
        self.known().topics.get(topic).map(Topic::state).unwrap_or_default()
    }

    /// Records the position of an acknowledged record.
    pub(super) fn appended(&self, topic: &str, position: Position) {
        if let Some(topic) = self.known().topics.get_mut(topic) {
            let end = topic.ends.entry(position.partition).or_default();
            *end = position.offset.next().max(*end);
        }
    }

    /// Returns the smallest record size limit of all topics, in bytes. `None` if no limit is known.
    pub(super) fn smallest_limit(&self) -> Option<usize> {
        self.known().topics.values().filter_map(|topic| topic.settings.largest).min()
    }

    /// Creates the missing topics, as far as permitted, and checks all of them.
    pub(super) async fn ensure(&self, settings: &Settings, topics: &[TopicSpec]) -> Result<(), LogError> {
        let client = TemporaryAdmin::new(settings)?;
        let admin = client.get()?;
        // The topics are described first: if all of them exist, Usher needs no permission to create any.
        let mut found = partitions(admin, topics).await?;
        let missing: Vec<&TopicSpec> = topics.iter().filter(|topic| !found.contains_key(&topic.name)).collect();
        if !missing.is_empty() {
            may_be_made(admin, &missing).await?;
            make(admin, &missing).await?;
            // Described again, because another process may have created them with other properties. Brokers
            // take a moment.
            let look = || async {
                match partitions(admin, topics).await {
                    Ok(found) if found.len() < topics.len() => ControlFlow::Continue(()),
                    answer => ControlFlow::Break(answer),
                }
            };
            let limit = RetryLimit::Deadline(tokio::time::Instant::now() + SHOWN_WITHIN);
            let shown = retry(BETWEEN_LOOKS, limit, look).await;
            let missing = |()| LogError::Unavailable("topics have been made and do not show yet".into());
            found = shown.map_err(missing)??;
        }
        for TopicSpec { name, partitions: wanted, .. } in topics {
            let found = found.get(name).copied().unwrap_or_default();
            if found < *wanted {
                return Err(LogError::PartitionCount { topic: name.clone(), found, wanted: *wanted });
            }
        }
        {
            let mut known = self.known();
            known.first = topics.first().map(|topic| topic.name.clone());
            for spec in topics {
                let topic = Topic {
                    spec: spec.clone(),
                    settings: TopicState::default(),
                    partitions: found.get(&spec.name).copied().unwrap_or_default(),
                    exists: true,
                    replaced: false,
                    ends: BTreeMap::new(),
                    told: Vec::new(),
                };
                known.topics.insert(spec.name.clone(), topic);
            }
        }
        self.audit(admin).await;
        let blocked = |topic: &TopicSpec| {
            let problem = self.state(&topic.name).blocked().cloned()?;
            Some(LogError::Topic { topic: topic.name.clone(), problem })
        };
        topics.iter().find_map(blocked).map_or(Ok(()), Err)
    }

    /// Checks the first topic again, and every [`AUDIT_EVERY`] the settings of all topics.
    pub(super) async fn check(&self, settings: &Settings, watermarks: &WatermarkQuery) -> Result<(), LogError> {
        let Some(first) = self.known().first.clone() else {
            return watermarks.metadata(settings, None, |_| Ok(())).await;
        };
        // The highest known ends are copied before the query, because records are acknowledged during it.
        let seen = self.known().topics.get(&first).map(|topic| topic.ends.clone());
        let found = watermarks.metadata(settings, Some(first.clone()), partition_counts).await?.get(&first).copied();
        // Not queried for a topic that is gone.
        let ends = match found {
            Some(_) => watermarks.ends(settings, &first).await?,
            None => BTreeMap::new(),
        };
        self.found(&first, found, &seen.unwrap_or_default(), &ends);
        if self.known().audited_at.is_none_or(|at| at.elapsed() >= AUDIT_EVERY) {
            self.audit(TemporaryAdmin::new(settings)?.get()?).await;
        }
        match self.state(&first).blocked().cloned() {
            None => Ok(()),
            Some(problem) => Err(LogError::Topic { topic: first, problem }),
        }
    }

    fn found(
        &self,
        name: &str,
        partitions: Option<i32>,
        seen: &BTreeMap<Partition, Offset>,
        ends: &BTreeMap<Partition, Offset>,
    ) {
        let mut known = self.known();
        let Some(topic) = known.topics.get_mut(name) else { return };
        topic.exists = partitions.is_some();
        if let Some(partitions) = partitions {
            topic.replaced |= partitions < topic.partitions;
            topic.partitions = partitions;
            for (partition, end) in ends {
                topic.replaced |= seen.get(partition).is_some_and(|seen| end < seen);
                let reached = topic.ends.entry(*partition).or_default();
                *reached = (*end).max(*reached);
            }
        }
        topic.tell();
    }

    /// Reads the settings of all topics. If the request fails, the previous state stays; unreadable settings block
    /// nothing.
    async fn audit(&self, admin: &Admin) {
        let specs: Vec<TopicSpec> = self.known().topics.values().map(|topic| topic.spec.clone()).collect();
        let names: Vec<ResourceSpecifier<'_>> = specs.iter().map(|spec| ResourceSpecifier::Topic(&spec.name)).collect();
        let options = AdminOptions::new().request_timeout(Some(QUESTION_DEADLINE));
        let answers = match admin.describe_configs(&names, &options).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(%error, "reading topic settings failed; retrying");
                return;
            }
        };
        let denied = |code: &RDKafkaErrorCode| {
            matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)
        };
        let hidden = answers.iter().any(|answer| answer.as_ref().is_err_and(denied));
        for spec in &specs {
            // The results are in no particular order, and a refusal does not name its topic.
            let of_topic = |config: &&ConfigResource| matches!(&config.specifier, OwnedResourceSpecifier::Topic(name) if *name == spec.name);
            let settings = match answers.iter().flatten().find(of_topic) {
                Some(config) => {
                    let state = audit::state(spec, config);
                    if state.problems.contains(&TopicProblem::UnlimitedDeadLetters)
                        && end_letters(admin, spec, config).await
                    {
                        continue; // read again with the next audit
                    }
                    state
                }
                None if hidden => TopicState { problems: vec![TopicProblem::SettingsHidden], ..TopicState::default() },
                // The topic is gone, which the check finds, or no broker answers for it now.
                None => continue,
            };
            if let Some(topic) = self.known().topics.get_mut(&spec.name) {
                topic.settings = settings;
                topic.tell();
            }
        }
        self.known().audited_at = Some(Instant::now());
    }
}

/// Limits the retention of dead letters that an earlier version or an operator has set to unlimited. Returns false if
/// that is not allowed.
async fn end_letters(admin: &Admin, spec: &TopicSpec, found: &ConfigResource) -> bool {
    let Retention::Compact(retention) = spec.retention else { return false };
    let retention = retention.as_millis().to_string();
    // The request replaces all settings of the topic, so it repeats those that were set before.
    let set = |entry: &&rdkafka::admin::ConfigEntry| {
        entry.source == ConfigSource::DynamicTopic && entry.name != "cleanup.policy" && entry.name != "retention.ms"
    };
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(&spec.name))
        .set("cleanup.policy", "compact,delete")
        .set("retention.ms", &retention);
    for entry in found.entries.iter().filter(set) {
        if let Some(value) = &entry.value {
            change = change.set(&entry.name, value);
        }
    }
    let options = AdminOptions::new().request_timeout(Some(QUESTION_DEADLINE));
    let changed = match admin.alter_configs(&[change], &options).await {
        Ok(results) => results.into_iter().all(|result| result.is_ok()),
        Err(error) => {
            tracing::debug!(%error, "changing topic settings failed");
            false
        }
    };
    if changed {
        tracing::info!(topic = spec.name, retention_ms = retention, "dead letter retention set");
    }
    changed
}

/// Checks that the missing topics may be created. Returns an error if one of them existed before.
async fn may_be_made(admin: &Arc<Admin>, missing: &[&TopicSpec]) -> Result<(), LogError> {
    for topic in missing {
        let existed = match &topic.creation {
            Creation::Always => false,
            Creation::Never => true,
            Creation::FirstStart { groups } => {
                let admin = admin.clone();
                let prefix = groups.clone();
                blocking(move || {
                    let groups = admin.inner().fetch_group_list(None, QUESTION_DEADLINE).map_err(unavailable)?;
                    // Another installation's prefix may begin with this one. The name of a flow has no dot.
                    let ours = |name: &str| name.strip_prefix(&prefix).is_some_and(|flow| !flow.contains('.'));
                    Ok(groups.groups().iter().any(|group| ours(group.name())))
                })
                .await?
            }
        };
        if existed {
            return Err(LogError::Topic { topic: topic.name.clone(), problem: TopicProblem::Missing });
        }
    }
    Ok(())
}

async fn make(admin: &Admin, topics: &[&TopicSpec]) -> Result<(), LogError> {
    // Kafka applies the limit to the stored batch, so it is above the largest record.
    let largest = (MAX_RECORD + BATCH_ROOM).to_string();
    let settings = topics.iter().map(|topic| match topic.retention {
        Retention::Time => ("delete", RETENTION.as_millis().to_string()),
        Retention::Compact(time) => ("compact,delete", time.as_millis().to_string()),
    });
    let settings: Vec<(&str, String)> = settings.collect();
    let new = topics.iter().zip(&settings).map(|(topic, (policy, time))| {
        // Both are set, because a cluster may have other defaults.
        NewTopic::new(&topic.name, topic.partitions, CLUSTER_DEFAULT)
            .set("max.message.bytes", &largest)
            .set("cleanup.policy", policy)
            .set("retention.ms", time)
    });
    let new: Vec<NewTopic<'_>> = new.collect();
    let options =
        AdminOptions::new().request_timeout(Some(QUESTION_DEADLINE)).operation_timeout(Some(QUESTION_DEADLINE));
    let results = admin.create_topics(&new, &options).await;
    for result in results.map_err(unavailable)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(LogError::Unavailable(format!("topic {topic} cannot be made: {code}"))),
        }
    }
    Ok(())
}

/// Returns the number of partitions of each topic that exists.
async fn partitions(admin: &Arc<Admin>, topics: &[TopicSpec]) -> Result<HashMap<String, i32>, LogError> {
    let admin = admin.clone();
    // A single topic is requested by name; several are filtered from one request for all.
    let only = if let [topic] = topics { Some(topic.name.clone()) } else { None };
    let found: HashMap<String, i32> = blocking(move || {
        partition_counts(&admin.inner().fetch_metadata(only.as_deref(), QUESTION_DEADLINE).map_err(unavailable)?)
    })
    .await?;
    Ok(found.into_iter().filter(|(name, _)| topics.iter().any(|topic| topic.name == *name)).collect())
}

/// Returns the number of partitions of each topic that a broker describes.
fn partition_counts(metadata: &Metadata) -> Result<HashMap<String, i32>, LogError> {
    // A denied description does not mean that the topic is missing.
    let denied =
        |found: &&MetadataTopic| found.error() == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    if let Some(topic) = metadata.topics().iter().find(denied) {
        return Err(LogError::Unavailable(format!("topic {} may not be described by this user", topic.name())));
    }
    let count = |found: &MetadataTopic| {
        let partitions = i32::try_from(found.partitions().len()).unwrap_or(i32::MAX);
        (found.name().to_owned(), partitions)
    };
    Ok(metadata.topics().iter().map(count).filter(|(_, partitions)| *partitions > 0).collect())
}

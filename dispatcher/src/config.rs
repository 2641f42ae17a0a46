//! What the dispatcher needs to know, checked whole before anything starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use usher_eventlog::{LogAddress, LogLayout};
use usher_proto::Instance;
use usher_service::ConfigError;
use usher_service::options::{Environment, instance_suffix};
use usher_service::{listen, settings};

use crate::connectors::{self, SETTINGS, Use, quota};
use crate::flows::{self, Action, Flow, FlowSource};
use crate::sql::DatabaseAddress;
use crate::suppression::SuppressionPolicy;

/// The command line of `dispatcher`.
#[derive(Debug, clap::Parser)]
#[command(name = "dispatcher", version, about = "Carries events from the log to what should follow from them")]
pub struct Arguments {
    /// The flows to run, separated by commas; each is a consumer group of its own.
    #[arg(long = "flow", env = "USHER_FLOW", required = true, value_delimiter = ',')]
    pub names: Vec<String>,
    /// The address to serve /healthz, /readyz and /metrics on.
    #[arg(long, env = "USHER_ADMIN", default_value = "127.0.0.1:8081", value_parser = listen::parse)]
    pub admin: SocketAddr,
    /// Where the log is: `kafka://host:9092[,host:9092]`.
    #[arg(long, env = "USHER_LOG")]
    pub log: LogAddress,
    /// How its topics are laid out.
    #[command(flatten)]
    pub layout: LogLayout,
    /// Where the flow files are.
    #[command(flatten)]
    pub files: FlowFiles,
}

/// Which flow files to use.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FlowFiles {
    /// A folder of flow files; without it the built-in ones are used.
    #[arg(long = "flows", env = "USHER_FLOWS")]
    pub folder: Option<PathBuf>,
}

impl FlowFiles {
    /// The files as they are, not checked yet.
    pub fn read(&self) -> Result<Vec<FlowSource>, ConfigError> {
        self.folder.as_deref().map_or_else(|| Ok(flows::builtin()), flows::read_folder)
    }

    /// All flows, checked; warnings are logged.
    ///
    /// # Errors
    /// The files cannot be read, or every problem that they have.
    pub fn check(&self) -> Result<Vec<Flow>, ConfigError> {
        let (mut flows, mut problems) = (Vec::new(), Vec::new());
        for source in self.read()? {
            match Flow::check(source) {
                Ok(flow) => {
                    flow.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                    flows.push(flow);
                }
                Err(found) => problems.extend(found.iter().map(ToString::to_string)),
            }
        }
        if problems.is_empty() { Ok(flows) } else { Err(ConfigError(problems.join("\n"))) }
    }
}

/// A configuration that has been checked whole.
pub struct Config {
    /// Where the log is.
    pub log: LogAddress,
    /// librdkafka's properties.
    pub kafka: Vec<(String, String)>,
    /// How its topics are laid out.
    pub layout: LogLayout,
    /// Where the store is.
    pub store: DatabaseAddress,
    /// Where users of each instance are written; where none is said the store's own database, for the default instance.
    pub users: BTreeMap<String, DatabaseAddress>,
    /// The flows to run.
    pub flows: Vec<Flow>,
    /// The names of all flows that have a file, also of those that others run.
    pub known_flows: Vec<String>,
    /// Built-in flows that nobody named and that have no destination: each with what the names of its settings begin with.
    pub left_out: Vec<(String, &'static str)>,
    /// Whom not to write to.
    pub suppression: SuppressionPolicy,
    /// How long runs are remembered after they have ended, so that their events are recognised.
    pub keep: Duration,
    /// The destinations' settings.
    pub environment: Environment,
}

/// The setting of the schema that holds the store's tables.
pub const STORE_SCHEMA: &str = "USHER_STORE_SCHEMA";
/// How long runs are remembered unless configured: five times as long as the log keeps its events.
const KEEP: Duration = Duration::from_secs(35 * 24 * 3600);
/// The shortest memory: the log's week and a day.
const SHORTEST_KEEP: Duration = Duration::from_secs(8 * 24 * 3600);

impl Config {
    /// Checks what was given. `names` are the flows to run; empty means all there are, but of the built-in ones only those
    /// whose destinations have settings: whoever has an account at two of them need not have one at the others. A flow that
    /// is named, or stands in a folder of the user's own, is meant, and what it lacks is an error.
    pub fn new(
        log: LogAddress,
        layout: LogLayout,
        files: &FlowFiles,
        names: &[String],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        settings::check_values(environment)?;
        let mut flows = files.check()?;
        for name in names {
            if !flows.iter().any(|flow| flow.name == *name) {
                let known: Vec<&str> = flows.iter().map(|flow| flow.name.as_str()).collect();
                let why = format!("there is no flow {name:?}; there are {}", known.join(", "));
                return Err(ConfigError::new("USHER_FLOW", why));
            }
        }
        let known_flows = flows.iter().map(|flow| flow.name.clone()).collect();
        flows.retain(|flow| names.is_empty() || names.contains(&flow.name));
        let mut left_out = Vec::new();
        if names.is_empty() && files.folder.is_none() {
            for flow in std::mem::take(&mut flows) {
                match unset(&flow, environment)? {
                    None => flows.push(flow),
                    Some(settings) => left_out.push((flow.name, settings)),
                }
            }
        }
        let address = |variable: &str| -> Result<Option<DatabaseAddress>, ConfigError> {
            let text = environment.get(variable)?;
            text.map(|text| DatabaseAddress::parse(variable, &text)).transpose()
        };
        let in_schema = |address: DatabaseAddress| match environment.get(STORE_SCHEMA)? {
            Some(schema) => address.in_schema(STORE_SCHEMA, &schema),
            None => Ok(address),
        };
        let store = address("USHER_STORE")?.ok_or_else(|| {
            ConfigError::new("USHER_STORE", "not set: it may be postgres://user:password@host/database or sqlite:PATH")
        })?;
        let store = in_schema(store)?;
        for flow in &flows {
            for instance in flow.instances.iter().map(Instance::as_str) {
                for_instance(instance, check_variables(flow, &environment.scoped_to(instance)))?;
            }
        }
        let suppression = SuppressionPolicy::from_environment(environment, &flows)?;
        let keep = match environment.get("USHER_RUN_RETENTION")? {
            None => KEEP,
            Some(text) => {
                humantime::parse_duration(&text).ok().filter(|keep| *keep >= SHORTEST_KEEP).ok_or_else(|| {
                    let why = "it is a time from \"8d\" on, longer than the log keeps its events, such as \"35d\"";
                    ConfigError::new("USHER_RUN_RETENTION", why)
                })?
            }
        };
        let kafka = usher_eventlog::kafka_properties(environment)?;
        let mut config = Self {
            log,
            kafka,
            layout,
            store,
            users: BTreeMap::new(),
            flows,
            known_flows,
            left_out,
            suppression,
            keep,
            environment: environment.clone(),
        };
        config.users = config.users_of_instances()?;
        for (instance, connectors) in config.connectors() {
            let environment = environment.scoped_to(instance);
            for_instance(instance, connectors::default_sender(&environment))?;
            for connector in connectors {
                for_instance(instance, quota(connector, &environment))?;
            }
        }
        Ok(config)
    }

    /// The connectors that the flows use, by instance.
    pub fn connectors(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for flow in &self.flows {
            for instance in flow.instances.iter().map(Instance::as_str) {
                used.entry(instance).or_default().extend(flow.connectors());
            }
        }
        used
    }

    /// What the steps of an instance's flows ask of a connector.
    pub fn uses(&self, connector: &str, instance: &str) -> Vec<Use<'_>> {
        let flows = self.flows.iter().filter(|flow| flow.instances.contains(instance));
        let steps = flows.flat_map(|flow| flow.steps.iter().map(move |step| (flow, step)));
        let used = steps.filter_map(|(flow, step)| match &step.action {
            Action::Call(call) if call.connector == connector => {
                Some(Use { flow: &flow.name, step: &step.name, params: &call.params })
            }
            Action::Call(_) | Action::Wait(_) => None,
        });
        used.collect()
    }

    /// Another instance's users are not written where those of the default one are, unless that is said.
    fn users_of_instances(&self) -> Result<BTreeMap<String, DatabaseAddress>, ConfigError> {
        let (mut users, mut places) = (BTreeMap::new(), Vec::new());
        for (instance, connectors) in self.connectors() {
            if !connectors.contains("database") {
                continue;
            }
            let address = for_instance(instance, self.users_of(instance))?;
            let place = address.as_ref().unwrap_or(&self.store);
            if places.contains(place) {
                let why = "this is where another instance's users are written, and one id may stand for two people: name \
                           another database, or another schema by DATABASE_SCHEMA";
                return for_instance(instance, Err(ConfigError::new("DATABASE_URL", why)));
            }
            places.push(place.clone());
            if let Some(address) = address.filter(|address| *address != self.store) {
                users.insert(instance.to_owned(), address);
            }
        }
        Ok(users)
    }

    /// Where an instance's users are written; none where that is the store.
    fn users_of(&self, instance: &str) -> Result<Option<DatabaseAddress>, ConfigError> {
        const ADDRESS: &str = "DATABASE_URL";
        const SCHEMA: &str = "DATABASE_SCHEMA";
        let environment = self.environment.scoped_to(instance);
        let (address, schema) = (environment.get(ADDRESS)?, environment.get(SCHEMA)?);
        let address = match (address, &schema) {
            (Some(text), _) => DatabaseAddress::parse(ADDRESS, &text)?,
            // Another schema of the store's database.
            (None, Some(_)) => self.store.clone(),
            (None, None) if instance == Instance::DEFAULT => return Ok(None),
            (None, None) => return Err(ConfigError::new(ADDRESS, "not set: where this instance's users are written")),
        };
        let address = match schema {
            Some(schema) => address.in_schema(SCHEMA, &schema)?,
            None => address,
        };
        let suffix = if instance == Instance::DEFAULT { String::new() } else { instance_suffix(instance) };
        Ok(Some(address.named(&format!("{ADDRESS}{suffix}"))))
    }
}

/// Says of which instance a setting is wrong.
pub(crate) fn for_instance<T>(instance: &str, result: Result<T, ConfigError>) -> Result<T, ConfigError> {
    if instance == Instance::DEFAULT {
        return result;
    }
    let suffix = instance_suffix(instance);
    result
        .map_err(|error| ConfigError(format!("for the instance {instance}, whose variables end in {suffix}: {error}")))
}

/// What the settings begin with of a destination of the flow that has none at all. One that has some is meant to be used.
fn unset(flow: &Flow, environment: &Environment) -> Result<Option<&'static str>, ConfigError> {
    for connector in flow.connectors() {
        if let Some((_, prefix)) = SETTINGS.iter().find(|(known, _)| *known == connector)
            && environment.with_prefix(prefix)?.is_empty()
        {
            return Ok(Some(prefix));
        }
    }
    Ok(None)
}

/// What a step leaves to a variable must be there; else every run would die of it, one by one.
fn check_variables(flow: &Flow, environment: &Environment) -> Result<(), ConfigError> {
    for step in &flow.steps {
        let Action::Call(call) = &step.action else { continue };
        let operation = connectors::operation(&call.connector, &call.operation);
        for param in operation.into_iter().flat_map(|operation| operation.params) {
            if let Some(variable) = param.variable
                && !call.params.contains_key(param.name)
                && environment.get(variable)?.is_none()
            {
                let why = format!("not set, and step {} of flow {} gives no {}", step.name, flow.name, param.name);
                return Err(ConfigError::new(variable, why));
            }
        }
    }
    Ok(())
}

//! The configuration of the dispatcher. All of it is checked before anything starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use usher_connectors::{StepUse, is_configured, quota};
use usher_eventlog::{LogAddress, LogLayout};
use usher_flows::{Action, Flow, FlowFiles};
use usher_proto::Instance;
use usher_service::ConfigError;
use usher_service::options::{Environment, instance_suffix};
use usher_service::{listen, settings};
use usher_sql::DatabaseAddress;
use usher_suppression::SuppressionPolicy;

/// The command line of `dispatcher`.
#[derive(Debug, clap::Parser)]
#[command(name = "dispatcher", version, about = "Carries events from the log to what should follow from them")]
pub struct DispatcherArguments {
    /// The flows to run, separated by commas; each is a consumer group of its own.
    #[arg(long = "flow", env = "USHER_FLOW", required = true, value_delimiter = ',')]
    pub names: Vec<String>,
    /// The address to serve /healthz, /readyz and /metrics on.
    #[arg(long, env = "USHER_ADMIN", default_value = "127.0.0.1:8081", value_parser = listen::parse)]
    pub admin: SocketAddr,
    /// The address of the log: `kafka://host:9092[,host:9092]`.
    #[arg(long, env = "USHER_LOG")]
    pub log: LogAddress,
    /// The layout of the log's topics.
    #[command(flatten)]
    pub layout: LogLayout,
    /// The location of the flow files.
    #[command(flatten)]
    pub files: FlowFiles,
}

/// An optional step that is passed over, because its destination is not configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOverStep<'a> {
    /// The flow's name.
    pub flow: &'a str,
    /// The step's name.
    pub step: &'a str,
    /// The instance for which it is passed over.
    pub instance: &'a str,
    /// The setting that is not set, or the prefix of its settings.
    pub settings: &'a str,
}

/// A configuration that has been checked completely.
#[derive(Clone)]
pub struct DispatcherConfig {
    /// The address of the log.
    pub log: LogAddress,
    /// Properties passed to librdkafka.
    pub kafka: Vec<(String, String)>,
    /// The layout of the log's topics.
    pub layout: LogLayout,
    /// The address of the store.
    pub store: DatabaseAddress,
    /// The database that the users of an instance are written to, by instance. An instance without an entry uses the
    /// store's database; only the default instance can do so without a setting.
    pub users: BTreeMap<String, DatabaseAddress>,
    /// The flows to run.
    pub flows: Vec<Flow>,
    /// The names of all flows that have a file, including flows that other processes run.
    pub known_flows: Vec<String>,
    /// Built-in flows that are not run, because they were not named and one of their destinations has no settings, or a
    /// variable that they name is not set. Each stands with the reason.
    pub left_out: Vec<(String, String)>,
    /// The rules for suppressed recipients.
    pub suppression: SuppressionPolicy,
    /// Retention of ended runs. Within it, repeated events are recognised.
    pub keep: Duration,
    /// The number of times as fast at which waits of flows pass, from 1. Only doubles of destinations may be called by
    /// flows whose waits pass faster.
    pub wait_speed: u32,
    /// The environment, from which the settings of the destinations are read.
    pub environment: Environment,
}

/// The setting that names the schema of the store's tables.
pub const STORE_SCHEMA: &str = "USHER_STORE_SCHEMA";
/// Default retention of ended runs: five times the log's retention.
const KEEP: Duration = Duration::from_secs(35 * 24 * 3600);
/// Minimum retention of ended runs: the log's retention of a week, plus a day.
const SHORTEST_KEEP: Duration = Duration::from_secs(8 * 24 * 3600);

impl DispatcherConfig {
    /// Builds and checks the configuration. `names` are the flows to run. An empty list selects all flows that are
    /// enabled, but of the built-in ones only those whose destinations have settings: a user with an account at two of the
    /// destinations need not have one at the others. If a flow is named or comes from a folder of the user's own,
    /// missing settings are an error.
    ///
    /// # Errors
    ///
    /// A flow file, a flow name or a setting is invalid, a required setting is missing, or the users of two instances
    /// would be written to the same place.
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
        flows.retain(|flow| if names.is_empty() { flow.enabled } else { names.contains(&flow.name) });
        let mut left_out = Vec::new();
        if names.is_empty() && files.folder.is_none() {
            for mut flow in std::mem::take(&mut flows) {
                match unset(&mut flow, environment)? {
                    None => flows.push(flow),
                    Some(why) => left_out.push((flow.name, why)),
                }
            }
        }
        for flow in &mut flows {
            if let Some(name) = flow.settings.read(&flow.instances, environment)?.first() {
                return Err(ConfigError::new(name, format!("not set, and flow {} names it", flow.name)));
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
        let marketing = flows.iter().find_map(|flow| Some((flow.name.as_str(), flow.marketing()?)));
        let suppression = SuppressionPolicy::from_environment(environment, marketing)?;
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
            wait_speed: 1,
            environment: environment.clone(),
        };
        config.users = config.users_of_instances()?;
        for (instance, connectors) in config.connectors() {
            let environment = environment.scoped_to(instance);
            for_instance(instance, usher_connectors::default_sender(&environment))?;
            for connector in connectors {
                for_instance(instance, quota(connector, &environment))?;
            }
        }
        Ok(config)
    }

    /// Returns the connectors that the flows use, by instance.
    pub fn connectors(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for flow in &self.flows {
            for instance in flow.instances.iter().map(Instance::as_str) {
                let optional = self.configured(flow, instance).map(|(_, connector)| connector);
                used.entry(instance).or_default().extend(flow.required().chain(optional));
            }
        }
        used
    }

    /// Returns the optional steps of a flow whose destination is configured for an instance, each with its connector. A
    /// setting that cannot be read is reported when the connector is opened.
    fn configured<'a>(&self, flow: &'a Flow, instance: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let environment = self.environment.scoped_to(instance);
        flow.optional().filter(move |(_, connector)| is_configured(connector, &environment).unwrap_or(true))
    }

    /// Returns the optional steps that are passed over because their destination is not configured.
    pub fn passed_over(&self) -> Vec<PassedOverStep<'_>> {
        let mut passed_over = Vec::new();
        for flow in &self.flows {
            for instance in flow.instances.iter().map(Instance::as_str) {
                let configured: Vec<(&str, &str)> = self.configured(flow, instance).collect();
                let open = flow.optional().filter(|step| !configured.contains(step));
                passed_over.extend(open.map(|(step, connector)| PassedOverStep {
                    flow: &flow.name,
                    step,
                    instance,
                    settings: usher_connectors::spec(connector).and_then(|spec| spec.settings).unwrap_or(connector),
                }));
            }
        }
        passed_over
    }

    /// Returns the uses of a connector in the steps of an instance's flows.
    pub fn uses(&self, connector: &str, instance: &str) -> Vec<StepUse<'_>> {
        let flows = self.flows.iter().filter(|flow| flow.instances.contains(instance));
        flows.flat_map(Flow::uses).filter(|(used, _)| *used == connector).map(|(_, used)| used).collect()
    }

    /// Returns the users' databases by instance, without those that are the store. Two instances that would share one
    /// place are an error, because one id may stand for two people.
    fn users_of_instances(&self) -> Result<BTreeMap<String, DatabaseAddress>, ConfigError> {
        let mut users = BTreeMap::new();
        let mut places = Vec::new();
        for (instance, connectors) in self.connectors() {
            if !connectors.iter().any(|name| writes_to_database(name)) {
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

    /// Returns the database that an instance's users are written to; `None` if no setting names one and the instance is
    /// the default one, whose users are written to the store.
    fn users_of(&self, instance: &str) -> Result<Option<DatabaseAddress>, ConfigError> {
        const ADDRESS: &str = "DATABASE_URL";
        const SCHEMA: &str = "DATABASE_SCHEMA";
        let environment = self.environment.scoped_to(instance);
        let address = environment.get(ADDRESS)?;
        let schema = environment.get(SCHEMA)?;
        let address = match (address, &schema) {
            (Some(text), _) => DatabaseAddress::parse(ADDRESS, &text)?,
            // A schema alone means another schema in the store's database.
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

/// True if a connector writes to the users' database.
pub(crate) fn writes_to_database(connector: &str) -> bool {
    usher_connectors::spec(connector).is_some_and(|spec| spec.writes_to_database)
}

/// Adds the instance whose setting is wrong to an error. Errors of the default instance are returned unchanged.
pub(crate) fn for_instance<T>(instance: &str, result: Result<T, ConfigError>) -> Result<T, ConfigError> {
    if instance == Instance::DEFAULT {
        return result;
    }
    let suffix = instance_suffix(instance);
    result
        .map_err(|error| ConfigError(format!("for the instance {instance}, whose variables end in {suffix}: {error}")))
}

/// Returns the settings that a flow lacks: of its first destination that has no setting at all, or a variable that the flow
/// names; `None` if it lacks nothing. A destination with at least one setting is meant to be used.
fn unset(flow: &mut Flow, environment: &Environment) -> Result<Option<String>, ConfigError> {
    for connector in flow.required() {
        if !is_configured(connector, environment)?
            && let Some(settings) = usher_connectors::spec(connector).and_then(|spec| spec.settings)
        {
            return Ok(Some(format!("no {settings}... variable is set")));
        }
    }
    let missing = flow.settings.read(&flow.instances, environment)?;
    Ok(missing.first().map(|name| format!("{name} is not set")))
}

/// Checks that every parameter which a step leaves to a variable has one that is set. Otherwise every run of the flow
/// would be dead-lettered, one by one.
fn check_variables(flow: &Flow, environment: &Environment) -> Result<(), ConfigError> {
    for step in &flow.steps {
        let Action::Call(call) = &step.action else { continue };
        let operation = usher_connectors::operation(&call.connector, &call.operation);
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

//! What the dispatcher needs to know, checked whole before anything starts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use usher_log::{LogAddress, LogLayout};
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use crate::connectors;
use crate::flows::{self, Action, Flow, FlowSource};
use crate::reach::Reach;
use crate::sql::DatabaseAddress;

/// The command line of `dispatcher`.
#[derive(Debug, clap::Parser)]
#[command(name = "dispatcher", version, about = "Carries events from the log to what should follow from them")]
pub struct Arguments {
    /// The flows to run, separated by commas; each is a consumer group of its own.
    #[arg(long = "flow", env = "USHER_FLOW", required = true, value_delimiter = ',')]
    pub names: Vec<String>,
    /// The address to serve /healthz, /readyz and /metrics on.
    #[arg(long, env = "USHER_ADMIN", default_value = "127.0.0.1:8081")]
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
    pub fn read(&self) -> Result<Vec<FlowSource>, BadSetting> {
        self.folder.as_deref().map_or_else(|| Ok(flows::builtin()), flows::read_folder)
    }

    /// All flows, checked; every problem is told.
    pub fn check(&self) -> Result<Vec<Flow>, BadSetting> {
        let (mut flows, mut problems) = (Vec::new(), Vec::new());
        for source in self.read()? {
            match Flow::check(source) {
                Ok(flow) => flows.push(flow),
                Err(found) => problems.extend(found.iter().map(ToString::to_string)),
            }
        }
        if problems.is_empty() { Ok(flows) } else { Err(BadSetting(problems.join("\n"))) }
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
    /// Where users are written; none is the store's own database.
    pub users: Option<DatabaseAddress>,
    /// The flows to run.
    pub flows: Vec<Flow>,
    /// Whom not to write to.
    pub reach: Reach,
    /// How long runs are remembered after they have ended, so that their events are recognised.
    pub keep: Duration,
    /// The destinations' settings.
    pub environment: Environment,
}

/// How long runs are remembered unless configured: five times as long as the log keeps its events.
const KEEP: Duration = Duration::from_secs(35 * 24 * 3600);
/// The shortest memory: the log's week and a day.
const SHORTEST_KEEP: Duration = Duration::from_secs(8 * 24 * 3600);

impl Config {
    /// Checks what was given. `names` are the flows to run; empty means all there are.
    pub fn new(
        log: LogAddress,
        layout: LogLayout,
        files: &FlowFiles,
        names: &[String],
        environment: &Environment,
    ) -> Result<Self, BadSetting> {
        let mut flows = files.check()?;
        for name in names {
            if !flows.iter().any(|flow| flow.name == *name) {
                let known: Vec<&str> = flows.iter().map(|flow| flow.name.as_str()).collect();
                let why = format!("there is no flow {name:?}; there are {}", known.join(", "));
                return Err(BadSetting::new("USHER_FLOW", why));
            }
        }
        flows.retain(|flow| names.is_empty() || names.contains(&flow.name));
        let address = |variable: &str| -> Result<Option<DatabaseAddress>, BadSetting> {
            let text = environment.get(variable)?;
            text.map(|text| DatabaseAddress::parse(variable, &text)).transpose()
        };
        let store = address("USHER_STORE")?.ok_or_else(|| {
            BadSetting::new("USHER_STORE", "not set: it may be postgres://user:password@host/database or sqlite:PATH")
        })?;
        for flow in &flows {
            check_variables(flow, environment)?;
        }
        let reach = Reach::from_environment(environment, &flows)?;
        let keep = match environment.get("USHER_KEEP")? {
            None => KEEP,
            Some(text) => {
                humantime::parse_duration(&text).ok().filter(|keep| *keep >= SHORTEST_KEEP).ok_or_else(|| {
                    let why = "it is a time from \"8d\" on, longer than the log keeps its events, such as \"35d\"";
                    BadSetting::new("USHER_KEEP", why)
                })?
            }
        };
        let kafka = usher_log::kafka_properties(environment)?;
        let users = address("DATABASE_URL")?.filter(|users| *users != store);
        Ok(Self { log, kafka, layout, store, users, flows, reach, keep, environment: environment.clone() })
    }

    /// The connectors that the flows use.
    pub fn connectors(&self) -> Vec<&str> {
        let calls = self.flows.iter().flat_map(|flow| &flow.steps).filter_map(|step| match &step.action {
            Action::Call(call) => Some(call.connector.as_str()),
            Action::Wait(_) => None,
        });
        calls.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// What a step leaves to a variable must be there; else every run would die of it, one by one.
fn check_variables(flow: &Flow, environment: &Environment) -> Result<(), BadSetting> {
    for step in &flow.steps {
        let Action::Call(call) = &step.action else { continue };
        let operation = connectors::operation(&call.connector, &call.operation);
        for param in operation.into_iter().flat_map(|operation| operation.params) {
            if let Some(variable) = param.variable
                && !call.params.contains_key(param.name)
                && environment.get(variable)?.is_none()
            {
                let why = format!("not set, and step {} of flow {} gives no {}", step.name, flow.name, param.name);
                return Err(BadSetting::new(variable, why));
            }
        }
    }
    Ok(())
}

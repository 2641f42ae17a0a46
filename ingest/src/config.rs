//! What ingest needs to know, checked before anything starts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use usher_eventlog::{Log, LogAddress, LogError, LogLayout, LogWatch};
use usher_proto::Instance;
use usher_proto::unsubscribe::{SECRETS, UnsubscribeSecrets};
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_service::{listen, settings};

use crate::published;
use crate::sources::clerk::Clerk;
use crate::sources::resend::Resend;

/// Interval between checks that the log can be reached.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The command line of `ingest`.
#[derive(Debug, clap::Parser)]
#[command(name = "ingest", version, about = "Verifies webhooks and publishes them to the log")]
pub struct Arguments {
    /// The address to take webhooks on.
    #[arg(long, env = "USHER_LISTEN", default_value = "127.0.0.1:8080", value_parser = listen::parse)]
    pub listen: SocketAddr,
    /// The address to serve /healthz, /readyz and /metrics on.
    #[arg(long, env = "USHER_ADMIN", default_value = "127.0.0.1:8081", value_parser = listen::parse)]
    pub admin: SocketAddr,
    /// Where the log is: `kafka://host:9092[,host:9092]`.
    #[arg(long, env = "USHER_LOG")]
    pub log: LogAddress,
    /// How its topics are laid out.
    #[command(flatten)]
    pub layout: LogLayout,
}

/// A configuration that has been checked whole.
pub struct Config {
    /// The address to take webhooks on.
    pub listen: SocketAddr,
    /// The address of the pages for operators.
    pub admin: SocketAddr,
    /// Where the log is.
    pub log: LogAddress,
    /// librdkafka's properties.
    pub kafka: Vec<(String, String)>,
    /// How its topics are laid out.
    pub layout: LogLayout,
    /// Clerk's secrets, by instance.
    pub clerk: Clerk,
    /// Resend's secrets; without them it is no source.
    pub resend: Option<Resend>,
    /// What the links that end marketing mail are signed with; without it there are none.
    pub unsubscribe: Option<UnsubscribeSecrets>,
}

impl Config {
    /// Checks the command line and the environment.
    pub fn new(arguments: Arguments, environment: &Environment) -> Result<Self, ConfigError> {
        let Arguments { listen, admin, log, layout } = arguments;
        settings::check_values(environment)?;
        published::refuse_beside_real_destinations(environment)?;
        let kafka = usher_eventlog::kafka_properties(environment)?;
        let clerk = Clerk::from_environment(environment)?;
        let resend = Resend::from_environment(environment)?;
        let unsubscribe = environment.get(SECRETS)?.map(|text| UnsubscribeSecrets::parse(&text)).transpose();
        let unsubscribe = unsubscribe.map_err(|error| ConfigError::new(SECRETS, error))?;
        Ok(Self { listen, admin, log, kafka, layout, clerk, resend, unsubscribe })
    }

    /// The setting that lacks for webhooks of an instance, where no sender's can verify: what waits for them waits in vain.
    pub fn unset_secret(&self, instance: &Instance) -> Option<String> {
        let elsewhere = self.resend.as_ref().is_some_and(|resend| resend.takes(instance));
        self.clerk.unset(instance).filter(|_| !elsewhere)
    }

    /// Makes or checks the topic, then watches the log, until `stop`. A topic that is not as configured ends it: waiting
    /// does not mend that.
    pub fn prepare(
        &self,
        log: Arc<dyn Log>,
        mut watch: LogWatch,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), ConfigError>> + Send + 'static {
        let topic = self.layout.events();
        async move {
            let mut ensured = false;
            loop {
                if ensured {
                    // What it finds it has told.
                    let _ = watch.look().await;
                } else {
                    let state = log.ensure(std::slice::from_ref(&topic)).await;
                    watch.tell(&state);
                    ensured = state.is_ok();
                    if let Some(error) = state.err().filter(LogError::is_lasting) {
                        stop.cancel();
                        return Err(ConfigError::new("USHER_LOG", error));
                    }
                }
                if stop.run_until_cancelled(tokio::time::sleep(CHECK_EVERY)).await.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

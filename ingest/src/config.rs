//! The configuration of `ingest`, checked before anything starts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use usher_eventlog::{Log, LogAddress, LogError, LogLayout, LogWatch};
use usher_proto::unsubscribe::{SECRETS, UnsubscribeSecrets};
use usher_proto::{Instance, Source};
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_service::{listen, settings};

use crate::published;
use crate::sources::clerk::ClerkSource;
use crate::sources::nylas::{self, NylasSource};
use crate::sources::resend::{self, ResendSource};
use crate::sources::secrets::setting;
use crate::sources::standard::StandardSource;
use crate::sources::stripe::{self, StripeSource};

/// Interval between checks that the log is reachable.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The command line of `ingest`.
#[derive(Debug, clap::Parser)]
#[command(name = "ingest", version, about = "Verifies webhooks and publishes them to the log")]
pub struct IngestArguments {
    /// The address to receive webhooks on.
    #[arg(long, env = "USHER_LISTEN", default_value = "127.0.0.1:8080", value_parser = listen::parse)]
    pub listen: SocketAddr,
    /// The address to serve /healthz, /readyz and /metrics on.
    #[arg(long, env = "USHER_ADMIN", default_value = "127.0.0.1:8081", value_parser = listen::parse)]
    pub admin: SocketAddr,
    /// The address of the log: `kafka://host:9092[,host:9092]`.
    #[arg(long, env = "USHER_LOG")]
    pub log: LogAddress,
    /// The layout of the log's topics.
    #[command(flatten)]
    pub layout: LogLayout,
}

/// A complete and valid configuration.
pub struct IngestConfig {
    /// The address to receive webhooks on.
    pub listen: SocketAddr,
    /// The address of the health and metrics pages.
    pub admin: SocketAddr,
    /// The address of the log.
    pub log: LogAddress,
    /// Properties for librdkafka, as names and values.
    pub kafka: Vec<(String, String)>,
    /// The layout of the log's topics.
    pub layout: LogLayout,
    /// Clerk's signing secrets, by instance.
    pub clerk: ClerkSource,
    /// Resend's signing secrets. `None` disables this source.
    pub resend: Option<ResendSource>,
    /// Stripe's signing secrets. `None` disables this source.
    pub stripe: Option<StripeSource>,
    /// Nylas' signing secrets. `None` disables this source.
    pub nylas: Option<NylasSource>,
    /// The senders that are configured by name.
    pub standard: Vec<StandardSource>,
    /// The secrets that sign unsubscribe links. `None` disables these links.
    pub unsubscribe: Option<UnsubscribeSecrets>,
}

impl IngestConfig {
    /// Creates the configuration from the command line and the environment.
    ///
    /// # Errors
    ///
    /// A setting is invalid or missing, or a published signing secret is used together with a real destination.
    pub fn new(arguments: IngestArguments, environment: &Environment) -> Result<Self, ConfigError> {
        let IngestArguments { listen, admin, log, layout } = arguments;
        settings::check_values(environment)?;
        published::refuse_beside_real_destinations(environment)?;
        let kafka = usher_eventlog::kafka_properties(environment)?;
        let clerk = ClerkSource::from_environment(environment)?;
        let resend = ResendSource::from_environment(environment)?;
        let stripe = StripeSource::from_environment(environment)?;
        let nylas = NylasSource::from_environment(environment)?;
        let standard = StandardSource::all_from_environment(environment)?;
        let unsubscribe = environment.get(SECRETS)?.map(|text| UnsubscribeSecrets::parse(&text)).transpose();
        let unsubscribe = unsubscribe.map_err(|error| ConfigError::new(SECRETS, error))?;
        Ok(Self { listen, admin, log, kafka, layout, clerk, resend, stripe, nylas, standard, unsubscribe })
    }

    /// Returns the setting of the signing secret that an instance of a sender lacks. `None` if it is set, or if the
    /// source is not a sender of webhooks.
    pub fn unset_secret(&self, source: Source, instance: &Instance) -> Option<String> {
        match source {
            Source::Clerk => self.clerk.unset(instance),
            Source::Resend => match &self.resend {
                Some(resend) => resend.unset(instance),
                None => Some(setting(resend::VARIABLE, instance)),
            },
            Source::Stripe => match &self.stripe {
                Some(stripe) => stripe.unset(instance),
                None => Some(setting(stripe::VARIABLE, instance)),
            },
            Source::Nylas => match &self.nylas {
                Some(nylas) => nylas.unset(instance),
                None => Some(setting(nylas::VARIABLE, instance)),
            },
            Source::Sender(name) => match self.standard.iter().find(|sender| sender.name() == name) {
                Some(sender) => sender.unset(instance),
                None => Some(setting(&name.setting("SECRET"), instance)),
            },
            Source::Usher | Source::Schedule => None,
        }
    }

    /// Creates or checks the topic, then watches the log until `stop`.
    ///
    /// # Errors
    ///
    /// The topic differs from the configuration in a way that waiting does not correct. `stop` is cancelled then.
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
                    // The watch reports the result itself.
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

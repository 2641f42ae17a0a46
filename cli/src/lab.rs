//! `usher lab`: runs only the doubles of the destinations, so that they outlive the processes that are killed.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use usher_lab::{Lab, LabHandle};
use usher_proto::signature::SigningSecret;
use usher_service::options::Environment;
use usher_service::{listen, shutdown, telemetry};

use crate::output;

/// Runs only the doubles of the destinations; reach them through `RESEND_BASE_URL` and similar settings.
#[derive(Debug, clap::Args)]
pub(crate) struct LabArguments {
    /// The address to serve on.
    #[arg(long, env = "USHER_LAB", default_value = "127.0.0.1:8090", value_parser = listen::parse)]
    listen: SocketAddr,
    /// The address of its mail server, for `SMTP_URL`; any free port if not given.
    #[arg(long, env = "USHER_LAB_SMTP", value_parser = listen::parse)]
    smtp: Option<SocketAddr>,
    /// Number of newest effects and requests to keep; older ones are only counted.
    #[arg(long, env = "USHER_LAB_KEEP", default_value_t = usher_lab::KEEP, value_parser = parse_keep)]
    keep: usize,
}

/// Parses the number of entries to keep, from 1.
pub(crate) fn parse_keep(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|keep| *keep > 0).ok_or_else(|| "a whole number from 1".to_owned())
}

pub(crate) async fn run(arguments: LabArguments, environment: &Environment) -> anyhow::Result<()> {
    telemetry::start(environment)?;
    let stop = shutdown::on_signal()?;
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let listener = bind(arguments.listen).await?;
    let mail = match arguments.smtp {
        Some(mail) => Some(bind(mail).await?),
        None => None,
    };
    let lab = Lab::start_with(listener, mail, arguments.keep, stop.clone())?;
    output::notice(&format!("the lab is ready on {}, its mail server on {}", lab.url(), lab.smtp_url()));
    shutdown::drain(&stop, lab.stopped()).await;
    Ok(())
}

/// Returns the environment in which every destination is its double in `lab`. Real keys are replaced, so none leaves.
pub(crate) fn stand_in(environment: Environment, lab: &LabHandle) -> anyhow::Result<Environment> {
    let url = lab.url();
    let from = environment.get("USHER_FROM")?.unwrap_or_else(|| "Usher <hello@usher.test>".to_owned());
    let price = environment.get("STRIPE_PRICE_ID")?.unwrap_or_else(|| "price_lab".to_owned());
    let mut environment = environment;
    for (name, value) in usher_lab::settings(&url) {
        // The name of a receiver's secret may have a suffix.
        let also = environment.with_prefix(&format!("{name}_"))?;
        let named = also.iter().filter(|_| name == "HTTP_SIGNING_SECRET").map(|(rest, _)| format!("{name}_{rest}"));
        for name in named.chain([name.to_owned()]) {
            environment = environment.with(&name, value.clone());
        }
    }
    Ok(environment
        .with("USHER_FROM", from)
        .with("RESEND_BASE_URL", format!("{url}/resend"))
        .with("RESEND_API_KEY", "re_lab")
        .with("SMTP_URL", lab.smtp_url())
        .with("STRIPE_BASE_URL", format!("{url}/stripe"))
        .with("STRIPE_SECRET_KEY", "sk_test_lab")
        .with("STRIPE_PRICE_ID", price)
        // Users are written to the database of the store, not to the one that the shell's environment names.
        .with("DATABASE_URL", ""))
}

/// Lets the double of Clerk send its webhooks to ingest at `listen`, signed with the first secret of the default instance.
pub(crate) fn send_webhooks(lab: &LabHandle, listen: SocketAddr, environment: &Environment) -> anyhow::Result<()> {
    let secrets = environment.get("CLERK_WEBHOOK_SIGNING_SECRET")?.unwrap_or_default();
    let Some(secret) = secrets.split_whitespace().next() else { return Ok(()) };
    // A secret that is not valid ends the start where ingest reads it, with an error that says why.
    if let Ok(secret) = SigningSecret::parse(secret) {
        let to = format!("http://{listen}/webhooks/clerk").parse().context("the address of ingest")?;
        lab.lab().send_webhooks(to, secret)?;
    }
    Ok(())
}

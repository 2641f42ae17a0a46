//! `usher lab`: the destinations' doubles alone, so that they outlive what is being killed.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use usher_lab::Lab;
use usher_service::options::Environment;
use usher_service::{shutdown, telemetry};

use crate::output;

/// Runs the doubles of the destinations alone; reach them through RESEND_BASE_URL, STRIPE_BASE_URL.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The address to serve on.
    #[arg(long, env = "USHER_LAB", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
}

pub(crate) async fn run(arguments: Arguments, environment: &Environment) -> anyhow::Result<()> {
    telemetry::start(environment)?;
    let stop = shutdown::on_signal()?;
    let address = arguments.listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let lab = Lab::start(listener, stop.clone())?;
    output::line(&format!("the lab is ready on {}", lab.url()))?;
    shutdown::drain(&stop, lab.stopped()).await;
    Ok(())
}

/// The environment in which every destination is its double at `url`. Real keys are replaced, so that none leaves.
pub(crate) fn stand_in(environment: Environment, url: &str) -> anyhow::Result<Environment> {
    let from = environment.get("USHER_FROM")?.unwrap_or_else(|| "Usher <hello@usher.test>".to_owned());
    let price = environment.get("STRIPE_PRICE_ID")?.unwrap_or_else(|| "price_lab".to_owned());
    Ok(environment
        .with("USHER_FROM", from)
        .with("RESEND_BASE_URL", format!("{url}/resend"))
        .with("RESEND_API_KEY", "re_lab")
        .with("STRIPE_BASE_URL", format!("{url}/stripe"))
        .with("STRIPE_SECRET_KEY", "sk_test_lab")
        .with("STRIPE_PRICE_ID", price)
        // Users are written beside the runs, not into whatever database the shell happens to name.
        .with("DATABASE_URL", ""))
}

//! `usher health`: requests a page and reports its status, for containers that have no other HTTP client.

use std::time::Duration;

use anyhow::bail;
use usher_lab::traffic::Url;
use usher_service::telemetry;

use crate::values;

/// Time limit for the response.
const DEADLINE: Duration = Duration::from_secs(5);

/// Succeeds if a page answers 2xx; for health checks of containers.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthArguments {
    /// The page, such as `http://127.0.0.1:8081/readyz`.
    #[arg(value_parser = values::address)]
    url: Url,
}

pub(crate) async fn run(arguments: &HealthArguments) -> anyhow::Result<()> {
    telemetry::install_tls();
    let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
    let response = client.get(arguments.url.clone()).send().await?;
    let status = response.status();
    if !status.is_success() {
        bail!("{status}: {}", response.text().await?.trim());
    }
    Ok(())
}

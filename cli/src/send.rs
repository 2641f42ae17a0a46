//! `usher send`: signs events as their sender does, and posts them.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;
use usher_lab::traffic::{self, Generator, SentCount, Template, TrafficPlan, TrafficReport, TrafficSecret, Url};
use usher_proto::Source;
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_service::{Secret, shutdown, telemetry};

use crate::{bulk, data, output, values};

/// Maximum number of events for which each gets its own output line.
const LISTED: usize = 20;
/// Maximum number of requests in flight.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");

/// Signs events of Clerk and of other senders as they do, and posts them.
#[derive(Debug, clap::Args)]
pub(crate) struct SendArguments {
    /// A type with a built-in sample, such as user.created, some with a variant after a colon, such as
    /// user.updated:new-address; of another sender than Clerk after its name, such as
    /// stripe/customer.subscription.created; or a file that holds an event.
    what: String,
    /// The sender of the event in a file: clerk, stripe, nylas, resend, or the name of another sender. Default: clerk.
    #[arg(long)]
    source: Option<Source>,
    /// Address to post to; default: the running `usher up` of the data directory.
    #[arg(long, value_parser = values::address)]
    to: Option<Url>,
    /// The signing secret (whsec_...); default: that of the sender's setting, such as
    /// `STRIPE_WEBHOOK_SECRET`, else the one in the data directory.
    #[arg(long)]
    secret: Option<Secret>,
    /// Number of events.
    #[arg(long, default_value = "1", value_parser = values::count)]
    count: NonZeroU64,
    /// Events per second, such as 50 or 50/s; default: as fast as they are answered.
    #[arg(long, value_parser = values::rate)]
    rate: Option<f64>,
    /// Number of users among whom the events are spread; default: one user per event. A file is sent unchanged
    /// without this option.
    #[arg(long, value_parser = values::count)]
    users: Option<NonZeroU64>,
    /// Seed for the choice of users: the same seed, the same users. Default: random.
    #[arg(long)]
    seed: Option<u64>,
    /// The data directory of `usher up`.
    #[arg(long, env = "USHER_DATA", default_value = "./usher-data")]
    data: PathBuf,
}

pub(crate) async fn run(arguments: SendArguments, environment: &Environment) -> anyhow::Result<()> {
    telemetry::start(environment)?;
    telemetry::install_tls();
    let (template, users) = template(&arguments)?;
    let source = template.source();
    let variable = setting(source);
    let text = match &arguments.secret {
        Some(secret) => Some(secret.expose().to_owned()),
        None => environment.get(&variable)?,
    };
    let text = match text {
        Some(text) => text,
        None => data::read_secret(&arguments.data)?.ok_or_else(|| no_secret(&variable, &arguments.data))?,
    };
    let secret = TrafficSecret::parse(source, &text).map_err(|error| ConfigError::new(&variable, error))?;
    let to = match arguments.to {
        Some(to) => to,
        None => {
            let listen = data::read_addresses(&arguments.data)?.map(|addresses| addresses.listen);
            let listen = listen.map_or_else(|| "127.0.0.1:8080".to_owned(), |listen| listen.to_string());
            format!("http://{listen}/webhooks/{source}").parse()?
        }
    };
    let generator = Generator::new(template, users, arguments.seed.unwrap_or_else(rand::random));
    let order = TrafficPlan { to, count: arguments.count.get(), per_second: arguments.rate, max_concurrent: AT_ONCE };
    let stop = shutdown::on_signal()?;
    let report = send_with_progress(&order, &secret, &generator, &stop).await?;

    if report.sent.len() <= LISTED {
        for sent in &report.sent {
            let user = sent.user.as_deref().unwrap_or("-");
            output::line(&format!("{}  {}  {user}  {} ms", sent.reply, sent.id, sent.took.as_millis()))?;
        }
    } else {
        for (reply, count) in report.replies() {
            output::line(&format!("{reply}  {count}"))?;
        }
        if let Some(latency) = report.latency() {
            let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
            let p50 = ms(latency.p50);
            let p99 = ms(latency.p99);
            let max = ms(latency.max);
            output::line(&format!("in {:.1} s; p50 {p50}, p99 {p99}, max {max}", report.elapsed.as_secs_f64()))?;
        }
    }
    let refused = report.sent.len() as u64 - report.accepted();
    for (why, count) in report.reasons() {
        output::line(&format!("{count} refused: {why}"))?;
    }
    if report.sent.len() as u64 != arguments.count.get() {
        bail!(
            "interrupted: {} of {} events were sent, {refused} of them were not kept",
            report.sent.len(),
            arguments.count
        );
    }
    if refused > 0 {
        bail!("{refused} of {} events were not kept", report.sent.len());
    }
    Ok(())
}

/// Interval between two looks at the number of events that were sent.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Sends the events, and shows the progress on a terminal.
async fn send_with_progress(
    order: &TrafficPlan,
    secret: &TrafficSecret,
    generator: &Generator,
    stop: &CancellationToken,
) -> anyhow::Result<TrafficReport> {
    let sent = SentCount::default();
    let bar = bulk::progress_bar(order.count);
    let sending = traffic::send(order, secret, generator, stop, &sent);
    tokio::pin!(sending);
    let report = loop {
        tokio::select! {
            report = &mut sending => break report,
            () = tokio::time::sleep(SHOWN_EVERY) => bar.set_position(sent.load(Ordering::Relaxed)),
        }
    };
    bar.finish_and_clear();
    Ok(report?)
}

/// Returns the setting that holds the signing secret of a source.
fn setting(source: Source) -> String {
    match source {
        Source::Stripe => "STRIPE_WEBHOOK_SECRET".to_owned(),
        Source::Nylas => "NYLAS_WEBHOOK_SECRET".to_owned(),
        Source::Resend => "RESEND_WEBHOOK_SECRET".to_owned(),
        Source::Sender(name) => name.setting("SECRET"),
        Source::Clerk | Source::Usher | Source::Schedule => "CLERK_WEBHOOK_SIGNING_SECRET".to_owned(),
    }
}

/// Returns the error for a missing secret: `usher up` was given its own, or never ran in this data directory.
fn no_secret(variable: &str, data: &Path) -> ConfigError {
    let is_served = data::read_addresses(data).is_ok_and(|addresses| addresses.is_some());
    let why = if is_served {
        format!("not set, and `usher up` in {} was given a secret of its own: say --secret", data.display())
    } else {
        format!("not set, and {} holds none: start `usher up`, or say --secret", data.display())
    };
    ConfigError::new(variable, why)
}

/// Lists the samples of the sender that `named` begins with; without one, those of Clerk.
fn known(named: &str) -> String {
    let of_sender = |name: &String| {
        named.split_once('/').is_some_and(|(sender, _)| name.split_once('/').is_some_and(|(known, _)| known == sender))
    };
    let own: Vec<String> = traffic::all_sample_names().into_iter().filter(of_sender).collect();
    match own.is_empty() {
        true => format!(
            "{}; of other senders, such as stripe/customer.subscription.created",
            traffic::sample_names().join(", ")
        ),
        false => own.join(", "),
    }
}

/// Returns the event to send, and the number of users among whom such events are spread.
fn template(arguments: &SendArguments) -> anyhow::Result<(Template, Option<NonZeroU64>)> {
    let SendArguments { what, source, users, count, .. } = arguments;
    if let Some(source @ (Source::Usher | Source::Schedule)) = source {
        return Err(ConfigError::new("--source", format!("{source} sends no webhooks")).into());
    }
    let named = source.map_or_else(|| what.clone(), |source| format!("{source}/{what}"));
    if let Ok(template) = Template::sample(&named) {
        return Ok((template, Some(users.unwrap_or(*count))));
    }
    let path = PathBuf::from(what);
    if !path.exists() {
        return Err(
            ConfigError::new(what, format!("neither a file nor a type with a sample: {}", known(&named))).into()
        );
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let template = Template::of_source(source.unwrap_or(Source::Clerk), text);
    Ok((template.map_err(|error| ConfigError::new(what, error))?, *users))
}

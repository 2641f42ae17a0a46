//! `usher suppress`: manages the addresses to which no flow may write.

use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};
use usher_proto::unsubscribe::{address_key, is_list_name};
use usher_proto::{AddressDigest, EventId, Instance, Mailbox, Source, SubjectId};
use usher_service::ConfigError;
use usher_service::clock;
use usher_service::options::Environment;
use usher_store::SuppressionRecord;

use crate::orders::OperatorTarget;
use crate::output;

/// Adds an address to the suppression list of all flows, or removes it. Only its SHA-256 is stored.
#[derive(Debug, clap::Args)]
pub(crate) struct SuppressArguments {
    #[command(flatten)]
    desk: OperatorTarget,
    /// The address.
    #[arg(required_unless_present = "list")]
    address: Option<String>,
    /// Remove the address from the suppression list.
    #[arg(long)]
    remove: bool,
    /// Only mail of this list, as if the recipient had unsubscribed; all mail if not given.
    #[arg(long, value_name = "LIST", value_parser = parse_list)]
    from: Option<String>,
    /// Only mail of this instance of the sender; mail of all instances if not given.
    #[arg(long)]
    instance: Option<Instance>,
    /// Show the last suppression change of the address, or of all addresses.
    #[arg(long, conflicts_with_all = ["remove", "from", "instance"])]
    list: bool,
    /// With --list: print one JSON object per line.
    #[arg(long, requires = "list")]
    json: bool,
}

fn parse_list(text: &str) -> Result<String, String> {
    if is_list_name(text) { Ok(text.to_owned()) } else { Err("a list's name: a-z, 0-9, - and _".to_owned()) }
}

pub(crate) async fn run(arguments: SuppressArguments, environment: &Environment) -> anyhow::Result<()> {
    let SuppressArguments { desk, address, remove, from, instance, list, json } = arguments;
    let read =
        |text: String| text.parse::<Mailbox>().map_err(|error| ConfigError::new("ADDRESS", format!("it is {error}")));
    let address = address.map(read).transpose()?.map(|mailbox| AddressDigest::of(&mailbox.address));
    if list {
        return print(&desk.place.store().await?.suppressions(address).await?, json);
    }
    // clap guarantees that the address is present without `--list`.
    let Some(address) = address else { return Ok(()) };
    let kind = match (remove, &from) {
        (true, _) => SuppressionKind::Restored,
        (false, None) => SuppressionKind::Suppressed,
        (false, Some(_)) => SuppressionKind::Unsubscribed,
    };
    let what = from.as_ref().map_or_else(|| "mail".to_owned(), |list| format!("mail of the list {list}"));
    let scope = from.unwrap_or_else(|| ALL_LISTS.to_owned());
    let reason = "operator".to_owned();
    let subject = SubjectId::new(Source::Usher, &instance.clone().unwrap_or_default(), &address_key(address));
    let change = SuppressionChange { kind, address, scope, reason, by: desk.by.clone(), instance };
    let id = EventId::new(format!("reach_{:016x}", rand::random::<u64>()));
    let event = change.into_event(id, subject, clock::now());
    desk.log(environment).await?.append(&desk.layout.events(), event.into_record()).await?;
    let becomes = if remove { "is sent to it again" } else { "is sent to it any more" };
    output::line(&format!("{}{what} {becomes}, as soon as a flow has read so", if remove { "" } else { "no " }))
}

fn print(records: &[SuppressionRecord], json: bool) -> anyhow::Result<()> {
    if json {
        return records.iter().try_for_each(output::json);
    }
    let row = |record: &SuppressionRecord| {
        let state = if record.held { "not written to" } else { "restored" };
        let who = if record.who.is_empty() { "-" } else { &record.who };
        [&record.at.to_string(), &record.address, &record.instance, &record.scope, state, &record.reason, who]
            .map(str::to_owned)
    };
    let rows: Vec<[String; 7]> = records.iter().map(row).collect();
    output::table(["at", "address (SHA-256)", "instance", "mail", "state", "why", "who"], &rows)
}

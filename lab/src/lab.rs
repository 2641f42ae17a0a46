//! The lab as a whole: the list of doubles, starting it, and the controls as functions. [`crate::control`] offers the
//! same controls over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_proto::signature::SigningSecret;

use crate::clerk::hooks::Hooks;
use crate::double::Double;
use crate::fake_server::FakeServer;
use crate::faults::{Fault, FaultInForce};
use crate::ledger::{Entry, Filter, LedgerCounts, RequestLedger};
use crate::limits::Limit;
use crate::receiver::ReceiverDouble;
use crate::{
    ControlError, UnknownProvider, algolia, clerk, control, customer_io, discord, hubspot, loops, mailchimp, novu,
    nylas, posthog, resend, segment, slack, smtp, stripe, teams, webhook,
};

/// Default number of requests, and of effects, that a lab stores.
pub const KEEP: usize = 10_000;
/// Objects of each kind that a double stores, per stored effect.
const OBJECTS: usize = 2;
/// Idempotency keys that a double remembers, per stored effect. A signup is several requests, and a request may be
/// repeated long after it was made.
const KEYS: usize = 10;

/// Creates all doubles, in the order in which they are listed. Each stores up to `most` objects of a kind. That of Clerk
/// reports its changes to `hooks`.
fn doubles(most: usize, hooks: Hooks) -> Vec<Box<dyn Double>> {
    vec![
        Box::new(resend::ResendDouble::holding(most)),
        Box::new(smtp::SmtpDouble),
        Box::new(stripe::StripeDouble::holding(most)),
        Box::new(webhook::WebhookDouble),
        Box::new(mailchimp::MailchimpDouble::holding(most)),
        Box::new(novu::NovuDouble::holding(most)),
        Box::new(algolia::AlgoliaDouble::holding(most)),
        Box::new(nylas::NylasDouble::holding(most)),
        Box::new(clerk::ClerkDouble::holding(most, hooks)),
        Box::new(ReceiverDouble::holding(&slack::SLACK, most)),
        Box::new(ReceiverDouble::holding(&discord::DISCORD, most)),
        Box::new(ReceiverDouble::holding(&teams::TEAMS, most)),
        Box::new(ReceiverDouble::holding(&loops::LOOPS, most)),
        Box::new(ReceiverDouble::holding(&hubspot::HUBSPOT, most)),
        Box::new(ReceiverDouble::holding(&customer_io::CUSTOMER_IO, most)),
        Box::new(ReceiverDouble::holding(&segment::SEGMENT, most)),
        Box::new(ReceiverDouble::holding(&posthog::POSTHOG, most)),
    ]
}

/// All doubles with their state. Clones share the state.
#[derive(Clone)]
pub struct Lab {
    servers: Arc<[Arc<FakeServer>]>,
    ledger: Arc<RequestLedger>,
    hooks: Hooks,
    stop: CancellationToken,
}

impl Lab {
    /// Creates an empty lab. Once `stop` is cancelled, no request waits for a fault any longer, so that a server that
    /// drains its requests can stop.
    ///
    /// The lab stores the newest `keep` requests and the newest `keep` effects. The objects and idempotency keys of its
    /// doubles are bounded in proportion.
    pub fn new(keep: usize, stop: &CancellationToken) -> Self {
        let ledger = Arc::new(RequestLedger::keeping(keep));
        let keys = keep.saturating_mul(KEYS);
        let server = |double| Arc::new(FakeServer::new(double, ledger.clone(), keys, stop.clone()));
        let hooks = Hooks::default();
        let doubles = doubles(keep.saturating_mul(OBJECTS), hooks.clone());
        let servers = doubles.into_iter().map(server).collect();
        Self { servers, ledger: ledger.clone(), hooks, stop: stop.clone() }
    }

    /// Serves a new lab on `listener` until `stop` is cancelled, and its mail server on a free port of
    /// the same address.
    ///
    /// # Errors
    ///
    /// If the mail server's port cannot be opened, or the address of a listener cannot be read.
    pub fn start(listener: TcpListener, stop: CancellationToken) -> std::io::Result<LabHandle> {
        Self::start_with(listener, None, KEEP, stop)
    }

    /// Serves a new lab as [`start`](Self::start) does, with the mail server on `mail` if given, and storing the newest
    /// `keep` requests and effects.
    ///
    /// # Errors
    ///
    /// If the mail server's port cannot be opened, or the address of a listener cannot be read.
    pub fn start_with(
        listener: TcpListener,
        mail: Option<TcpListener>,
        keep: usize,
        stop: CancellationToken,
    ) -> std::io::Result<LabHandle> {
        let mail = match mail {
            Some(mail) => mail,
            None => {
                let mail = std::net::TcpListener::bind((listener.local_addr()?.ip(), 0))?;
                mail.set_nonblocking(true)?;
                TcpListener::from_std(mail)?
            }
        };
        let address = listener.local_addr()?;
        let mail_address = mail.local_addr()?;
        let lab = Self::new(keep, &stop);
        if let Some(server) = lab.servers.iter().find(|server| server.double.name() == smtp::NAME) {
            tokio::spawn(smtp::serve(mail, server.clone(), stop.clone()));
        }
        let served = tokio::spawn(usher_service::http::serve(listener, lab.router(), stop));
        Ok(LabHandle { lab, address, mail_address, served })
    }

    /// Returns the HTTP routes of the doubles and the controls.
    pub fn router(&self) -> Router {
        control::router(self.clone())
    }

    /// Sends the webhooks of the double of Clerk to `to` from now on, signed with `secret`: of every user and organization that is
    /// created, changed or deleted there. [`install_tls`](usher_service::telemetry::install_tls) must have been called before.
    ///
    /// # Errors
    ///
    /// If the HTTP client cannot be created.
    pub fn send_webhooks(&self, to: reqwest::Url, secret: SigningSecret) -> Result<(), reqwest::Error> {
        self.hooks.send_to(to, secret, self.stop.clone())
    }

    /// Returns the name of the double that stands in for this host; `None` if none does.
    pub(crate) fn serves_host(&self, host: &str) -> Option<&'static str> {
        let is_it = |known: &&str| *known == host || (known.starts_with('.') && host.ends_with(known));
        let server = self.servers.iter().find(|server| server.double.hosts().iter().any(&is_it))?;
        Some(server.double.name())
    }

    /// Returns the names of the doubles.
    pub fn providers(&self) -> Vec<&'static str> {
        self.servers.iter().map(|server| server.double.name()).collect()
    }

    /// Returns the counts of each double since the start or the last [`forget`](Self::forget), including entries that
    /// are no longer stored.
    pub fn counts(&self) -> BTreeMap<&'static str, LedgerCounts> {
        self.ledger.counts()
    }

    /// Returns the stored effects, oldest first.
    ///
    /// # Errors
    ///
    /// If the filter names an unknown double.
    pub fn effects(&self, filter: &Filter) -> Result<Vec<Arc<Entry>>, UnknownProvider> {
        self.known(filter)?;
        Ok(self.ledger.effects(filter))
    }

    /// Returns the stored requests, oldest first.
    ///
    /// # Errors
    ///
    /// If the filter names an unknown double.
    pub fn requests(&self, filter: &Filter) -> Result<Vec<Arc<Entry>>, UnknownProvider> {
        self.known(filter)?;
        Ok(self.ledger.requests(filter))
    }

    /// Clears the stored effects and requests, and the counts. The state of the doubles stays: customers,
    /// subscriptions, idempotency keys, faults and limits.
    pub fn forget(&self) {
        self.ledger.forget();
    }

    /// Puts a fault in force, replacing earlier ones.
    ///
    /// # Errors
    ///
    /// If there is no such double, or the fault is invalid.
    pub fn set_fault(&self, provider: &str, fault: Fault) -> Result<(), ControlError> {
        self.set_faults(provider, vec![fault])
    }

    /// Puts several faults in force at once, replacing earlier ones. Each has its own random numbers. For each request
    /// the first fault that matches applies.
    ///
    /// # Errors
    ///
    /// If there is no such double, or a fault is invalid. Earlier faults then stay in force.
    pub fn set_faults(&self, provider: &str, faults: Vec<Fault>) -> Result<(), ControlError> {
        Ok(self.server(provider)?.faults.set(faults, Instant::now())?)
    }

    /// Ends all faults in force.
    ///
    /// # Errors
    ///
    /// If there is no such double.
    pub fn end_fault(&self, provider: &str) -> Result<(), UnknownProvider> {
        self.server(provider)?.faults.end();
        Ok(())
    }

    /// Returns the faults in force, in the order in which they are tried.
    ///
    /// # Errors
    ///
    /// If there is no such double.
    pub fn faults(&self, provider: &str) -> Result<Vec<FaultInForce>, UnknownProvider> {
        Ok(self.server(provider)?.faults.in_force(Instant::now()))
    }

    /// Makes a double forget the idempotency keys that have a stored response, as happens by itself after a day (an
    /// hour at Nylas). A repeated request then has its effect again.
    ///
    /// # Errors
    ///
    /// If there is no such double.
    pub fn forget_keys(&self, provider: &str) -> Result<(), UnknownProvider> {
        self.server(provider)?.memory.forget();
        Ok(())
    }

    /// Limits the requests per second, replacing an earlier limit.
    ///
    /// # Errors
    ///
    /// If there is no such double, or the limit is out of range.
    pub fn set_limit(&self, provider: &str, limit: Limit) -> Result<(), ControlError> {
        Ok(self.server(provider)?.limits.set(limit)?)
    }

    /// Ends the limit, if there is one.
    ///
    /// # Errors
    ///
    /// If there is no such double.
    pub fn end_limit(&self, provider: &str) -> Result<(), UnknownProvider> {
        self.server(provider)?.limits.end();
        Ok(())
    }

    /// Returns the limit in force, if any.
    ///
    /// # Errors
    ///
    /// If there is no such double.
    pub fn limit(&self, provider: &str) -> Result<Option<Limit>, UnknownProvider> {
        Ok(self.server(provider)?.limits.in_force())
    }

    pub(crate) fn server(&self, provider: &str) -> Result<&Arc<FakeServer>, UnknownProvider> {
        let unknown = || UnknownProvider { name: provider.to_owned(), known: self.providers() };
        self.servers.iter().find(|server| server.double.name() == provider).ok_or_else(unknown)
    }

    fn known(&self, filter: &Filter) -> Result<(), UnknownProvider> {
        filter.provider.as_deref().map_or(Ok(()), |provider| self.server(provider).map(|_| ()))
    }
}

/// A lab that is being served.
pub struct LabHandle {
    lab: Lab,
    address: SocketAddr,
    mail_address: SocketAddr,
    served: JoinHandle<()>,
}

impl LabHandle {
    /// Returns the lab, for use in the same process. A clone of it remains usable after the server has stopped.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Returns the address of the HTTP server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the HTTP server, which is the base of the controls.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the URL of the mail server, in the form of `SMTP_URL`.
    pub fn smtp_url(&self) -> String {
        format!("smtp://{}", self.mail_address)
    }

    /// Returns the base URL of a double, for a connector's `<NAME>_BASE_URL`.
    ///
    /// # Errors
    ///
    /// If there is no such double.
    pub fn base_url(&self, provider: &str) -> Result<String, UnknownProvider> {
        let name = self.lab.server(provider)?.double.name();
        Ok(format!("{}/{name}", self.url()))
    }

    /// Waits until the server has stopped: after `stop` is cancelled, once all requests in flight are finished.
    pub async fn stopped(self) {
        if let Err(error) = self.served.await {
            tracing::error!(%error, "the lab's server ended early");
        }
    }
}

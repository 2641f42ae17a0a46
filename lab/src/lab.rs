//! The lab as a whole: which doubles there are, how it is started, and the controls as functions. The same controls
//! over HTTP stand in [`crate::control`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::double::Double;
use crate::fake_server::FakeServer;
use crate::faults::{Fault, FaultInForce};
use crate::ledger::{Counts, Entry, Filter, Ledger};
use crate::limits::Limit;
use crate::{ControlError, UnknownProvider, algolia, control, mailchimp, novu, nylas, resend, smtp, stripe, webhook};

/// Default number of requests and effects that a lab keeps.
pub const KEEP: usize = 10_000;
/// How many objects of each kind a double holds, and how many idempotency keys it remembers, for each effect that is kept:
/// a signup is several requests, and a request may be repeated long after it was made.
const OBJECTS: usize = 2;
const KEYS: usize = 10;

/// Every double there is, in the order in which they are listed. Each holds up to `most` objects of a kind.
fn doubles(most: usize) -> Vec<Box<dyn Double>> {
    vec![
        Box::new(resend::Resend),
        Box::new(smtp::Smtp),
        Box::new(stripe::Stripe::holding(most)),
        Box::new(webhook::Webhook),
        Box::new(mailchimp::Mailchimp::holding(most)),
        Box::new(novu::Novu::holding(most)),
        Box::new(algolia::Algolia::holding(most)),
        Box::new(nylas::Nylas::holding(most)),
    ]
}

/// All doubles with their state. Clones share it.
#[derive(Clone)]
pub struct Lab {
    servers: Arc<[Arc<FakeServer>]>,
    ledger: Arc<Ledger>,
}

impl Lab {
    /// A lab in which nothing has happened yet. After `stop` no request waits for a fault any more, so that a server
    /// that finishes what it has begun comes to its end.
    ///
    /// It keeps the newest `keep` requests and effects, and bounds what its doubles hold and remember in proportion.
    pub fn new(keep: usize, stop: &CancellationToken) -> Self {
        let (ledger, keys) = (Arc::new(Ledger::keeping(keep)), keep.saturating_mul(KEYS));
        let server = |double| Arc::new(FakeServer::new(double, ledger.clone(), keys, stop.clone()));
        Self {
            servers: doubles(keep.saturating_mul(OBJECTS)).into_iter().map(server).collect(),
            ledger: ledger.clone(),
        }
    }

    /// Serves a new lab on `listener` until `stop`, and its mail server on any free port beside it.
    pub fn start(listener: TcpListener, stop: CancellationToken) -> std::io::Result<LabHandle> {
        Self::start_with(listener, None, KEEP, stop)
    }

    /// The same, with the mail server on a port of its own where one is given, and keeping the newest `keep` requests and
    /// effects.
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
        let (address, mail_address) = (listener.local_addr()?, mail.local_addr()?);
        let lab = Self::new(keep, &stop);
        if let Some(server) = lab.servers.iter().find(|server| server.double.name() == smtp::NAME) {
            tokio::spawn(smtp::serve(mail, server.clone(), stop.clone()));
        }
        let served = tokio::spawn(usher_service::http::serve(listener, lab.router(), stop));
        Ok(LabHandle { lab, address, mail_address, served })
    }

    /// All faces of the lab: the doubles and the controls.
    pub fn router(&self) -> Router {
        control::router(self.clone())
    }

    /// The names of the doubles.
    pub fn providers(&self) -> Vec<&'static str> {
        self.servers.iter().map(|server| server.double.name()).collect()
    }

    /// How much there was of each double since the start or the last [`forget`](Self::forget), also of what is not kept.
    pub fn counts(&self) -> BTreeMap<&'static str, Counts> {
        self.ledger.counts()
    }

    /// The newest of what the doubles accepted, oldest first.
    pub fn effects(&self, filter: &Filter) -> Result<Vec<Arc<Entry>>, UnknownProvider> {
        self.known(filter)?;
        Ok(self.ledger.effects(filter))
    }

    /// The newest of the requests that arrived, oldest first.
    pub fn requests(&self, filter: &Filter) -> Result<Vec<Arc<Entry>>, UnknownProvider> {
        self.known(filter)?;
        Ok(self.ledger.requests(filter))
    }

    /// Forgets effects and requests. What the doubles themselves hold stays: customers, subscriptions, idempotency
    /// keys, faults and limits.
    pub fn forget(&self) {
        self.ledger.forget();
    }

    /// Puts a fault in force in place of earlier ones.
    pub fn set_fault(&self, provider: &str, fault: Fault) -> Result<(), ControlError> {
        self.set_faults(provider, vec![fault])
    }

    /// Puts several faults in force at once, in place of earlier ones. Each draws its own lots; for each request the
    /// first that strikes counts.
    pub fn set_faults(&self, provider: &str, faults: Vec<Fault>) -> Result<(), ControlError> {
        Ok(self.server(provider)?.faults.set(faults, Instant::now())?)
    }

    /// Ends whatever faults are in force.
    pub fn end_fault(&self, provider: &str) -> Result<(), UnknownProvider> {
        self.server(provider)?.faults.end();
        Ok(())
    }

    /// The faults in force, in the order in which they are asked.
    pub fn faults(&self, provider: &str) -> Result<Vec<FaultInForce>, UnknownProvider> {
        Ok(self.server(provider)?.faults.in_force(Instant::now()))
    }

    /// Makes a double forget the idempotency keys it has answered, as it does by itself after a day: a request that is
    /// repeated then has its effect again.
    pub fn forget_keys(&self, provider: &str) -> Result<(), UnknownProvider> {
        self.server(provider)?.memory.forget();
        Ok(())
    }

    /// Limits the requests per second in place of an earlier limit.
    pub fn set_limit(&self, provider: &str, limit: Limit) -> Result<(), ControlError> {
        Ok(self.server(provider)?.limits.set(limit)?)
    }

    /// Ends the limit, if there is one.
    pub fn end_limit(&self, provider: &str) -> Result<(), UnknownProvider> {
        self.server(provider)?.limits.end();
        Ok(())
    }

    /// The limit in force.
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
    /// Its state, also for whoever stays in the process.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL: the controls are behind it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its mail server listens, as `SMTP_URL` takes it.
    pub fn smtp_url(&self) -> String {
        format!("smtp://{}", self.mail_address)
    }

    /// The base address to give to a connector in place of the real one: `<NAME>_BASE_URL`.
    pub fn base_url(&self, provider: &str) -> Result<String, UnknownProvider> {
        let name = self.lab.server(provider)?.double.name();
        Ok(format!("{}/{name}", self.url()))
    }

    /// Waits until it has stopped: after the token, when every request under way is finished.
    pub async fn stopped(self) {
        if let Err(error) = self.served.await {
            tracing::error!(%error, "the lab's server ended early");
        }
    }
}

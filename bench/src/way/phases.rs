//! The loads, one after the other on the same programs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::WayOptions;
use super::open_loop;
use super::pair::{Pair, PairKind};
use crate::dispatcher::KeyChoice;
use crate::ingest::load::{LoadConnection, LoadTarget, closed_loop};
use crate::ingest::requests::{self, SignedRequests};
use crate::meter::Meter;
use crate::programs::{SECRET, WEBHOOKS};
use crate::report::{LatencySummary, Sample};
use crate::services::BenchServices;
use crate::sink::{Effects, Sink};

/// Case of single events.
pub(super) const SINGLE: &str = "way, one event on an idle system";
/// Case of a load without a pause.
pub(super) const PEAK: &str = "way, peak";
/// Case of half of the peak rate.
pub(super) const HALF: &str = "way, 50 % of the peak";
/// Case of half of the peak rate, three of ten events of one user; latencies are those of the other users.
pub(super) const HOT: &str = "way, 50 % of the peak, one user with 30 %: the others";
/// Case of a few events a second.
pub(super) const STEADY: &str = "way, 60 events/s, three flows";
/// Flows of that case.
pub(super) const STEADY_FLOWS: usize = 3;

/// Events a second of the steady load.
const STEADY_RATE: f64 = 60.0;
/// Connections that find the peak.
const PEAK_CONNECTIONS: usize = 64;
/// Time for the effects of a load to arrive after it.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two single events, in milliseconds: longer than any timer that batches.
const PAUSE_MS: std::ops::Range<u64> = 15..45;
/// The user with many events.
const HOT_USER: usize = 0;

/// The loads of one round on one backend.
pub(super) struct Phases<'a> {
    kind: PairKind,
    services: &'a BenchServices,
    pair: &'a Pair,
    sink: &'a Sink,
    options: &'a WayOptions,
    round: usize,
    /// Number of the next request.
    next: usize,
    samples: Vec<Sample>,
}

impl<'a> Phases<'a> {
    /// Loads on programs that have done nothing yet.
    pub(super) fn new(
        kind: PairKind,
        services: &'a BenchServices,
        pair: &'a Pair,
        sink: &'a Sink,
        options: &'a WayOptions,
        round: usize,
    ) -> Self {
        Self { kind, services, pair, sink, options, round, next: 0, samples: Vec::new() }
    }

    /// Returns the figures.
    pub(super) fn into_samples(self) -> Vec<Sample> {
        self.samples
    }

    /// Runs all loads but the steady one.
    ///
    /// # Errors
    ///
    /// An effect does not arrive.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        self.singles().await.context(SINGLE)?;
        let peak = self.peak().await.context(PEAK)?;
        for (share, case) in [(0.25, "way, 25 % of the peak"), (0.5, HALF), (0.75, "way, 75 % of the peak")] {
            self.open_loop(case, peak * share, KeyChoice::Uniform, 1).await.context(case)?;
        }
        self.open_loop(HOT, peak * 0.5, KeyChoice::Hot, 1).await.context(HOT)
    }

    /// Runs the steady load.
    ///
    /// # Errors
    ///
    /// An effect does not arrive.
    pub(super) async fn steady(&mut self) -> anyhow::Result<()> {
        self.open_loop(STEADY, STEADY_RATE, KeyChoice::Uniform, STEADY_FLOWS).await.context(STEADY)
    }

    async fn sign(&mut self, count: usize, keys: KeyChoice) -> anyhow::Result<Arc<SignedRequests>> {
        let base = self.next;
        self.next += count;
        let users = self.options.users;
        let signed = tokio::task::spawn_blocking(move || SignedRequests::sign(SECRET, base, count, users, keys));
        Ok(Arc::new(signed.await??))
    }

    fn meter(&self) -> anyhow::Result<Meter> {
        let mut processes = self.pair.programs()?;
        if self.kind == PairKind::Services {
            processes.push(("Postgres", self.services.postmaster.clone()));
        }
        Meter::start(processes)
    }

    fn add(&mut self, case: &str, runs: usize, seconds: f64, meter: &Meter, latencies: Vec<u32>) -> anyhow::Result<()> {
        self.samples.push(Sample {
            case: case.to_owned(),
            arm: self.kind.name(),
            round: self.round,
            events: runs,
            repeated: 0,
            seconds,
            cpu_seconds: meter.read()?,
            beside_seconds: std::collections::BTreeMap::new(),
            peak_memory: self.pair.peak_memory()?,
            latency: LatencySummary::of(latencies),
        });
        Ok(())
    }

    async fn singles(&mut self) -> anyhow::Result<()> {
        let requests = self.sign(self.options.singles, KeyChoice::Uniform).await?;
        let mut connection = LoadConnection::open(self.pair.address()).await?;
        self.sink.reset();
        let meter = self.meter()?;
        let begun = Instant::now();
        let mut sent = Vec::new();
        for number in 0..requests.len() {
            sent.push(Instant::now());
            connection.send(&requests, number, WEBHOOKS).await?;
            self.sink.reached(number + 1, ARRIVES_WITHIN).await?;
            tokio::time::sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        }
        let latencies = self.latencies(&requests, &sent, |_| true)?;
        self.add(SINGLE, requests.len(), begun.elapsed().as_secs_f64(), &meter, latencies)
    }

    /// Returns the rate of effects while more events wait than can be in flight.
    async fn peak(&mut self) -> anyhow::Result<f64> {
        let requests = self.sign(self.options.peak_events, KeyChoice::Uniform).await?;
        self.sink.reset();
        let meter = self.meter()?;
        let begun = Instant::now();
        let target = LoadTarget { address: self.pair.address(), path: WEBHOOKS };
        let count = requests.len();
        closed_loop(target, requests, 0, PEAK_CONNECTIONS, ARRIVES_WITHIN).await?;
        self.sink.reached(count, ARRIVES_WITHIN).await?;
        let Effects { last, .. } = self.sink.effects();
        let seconds = last.saturating_duration_since(begun).as_secs_f64();
        self.add(PEAK, count, seconds, &meter, Vec::new())?;
        Ok(count as f64 / seconds)
    }

    async fn open_loop(&mut self, case: &str, rate: f64, keys: KeyChoice, flows: usize) -> anyhow::Result<()> {
        let count = (rate * self.options.seconds as f64) as usize;
        let requests = self.sign(count, keys).await?;
        self.sink.reset();
        let meter = self.meter()?;
        let begun = Instant::now();
        let sent = open_loop::send(self.pair.address(), requests.clone(), rate).await?;
        self.sink.reached(count * flows, ARRIVES_WITHIN).await?;
        let users = self.options.users;
        let of_others = |number| keys != KeyChoice::Hot || keys.user(number, users) != HOT_USER;
        let latencies = self.latencies(&requests, &sent, of_others)?;
        self.add(case, count * flows, begun.elapsed().as_secs_f64(), &meter, latencies)
    }

    /// Returns the time from the send of each request to its first effect, in microseconds.
    fn latencies(
        &self,
        requests: &SignedRequests,
        sent: &[Instant],
        counts: impl Fn(usize) -> bool,
    ) -> anyhow::Result<Vec<u32>> {
        let mut latencies = Vec::new();
        for (event, arrived_at) in self.sink.events() {
            let number = requests::number(&event)?.checked_sub(requests.base()).context("an event of another load")?;
            let sent_at = sent.get(number).context("an event that was not sent")?;
            if counts(number) {
                let micros = arrived_at.saturating_duration_since(*sent_at).as_micros();
                latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
            }
        }
        Ok(latencies)
    }
}

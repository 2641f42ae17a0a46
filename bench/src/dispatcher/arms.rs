//! The arms of a scenario, in the order in which they run.

use anyhow::Context as _;

use super::parallel_consumer::{self, ParallelConsumer};
use super::{DispatchRound, Scenario, StepChoice};
use super::{bare_sql, built_in, drain, floor, one_by_one, restate, upserts, usher};
use crate::report::Sample;
use crate::suite::Rounds;

/// The arms, ready to run.
pub(super) struct DispatchArms<'a> {
    step: StepChoice,
    rounds: &'a Rounds,
    kafka: usher::KafkaTopic,
    embedded: Option<usher::EmbeddedLogFile>,
    parallel_consumer: Option<ParallelConsumer>,
}

impl<'a> DispatchArms<'a> {
    /// Fills the embedded log, and fetches and compiles what the peers need.
    ///
    /// # Errors
    ///
    /// Something cannot be fetched or compiled.
    pub(super) async fn prepare(
        scenario: &Scenario,
        rounds: &'a Rounds,
        kafka: usher::KafkaTopic,
    ) -> anyhow::Result<Self> {
        let step = scenario.step;
        let mut arms = Self { step, rounds, kafka, embedded: None, parallel_consumer: None };
        if step != StepChoice::BuiltIn && rounds.wants(usher::EMBEDDED) {
            arms.embedded = Some(usher::EmbeddedLogFile::fill(scenario).await?);
        }
        if arms.peers().next().is_some() {
            arms.parallel_consumer = Some(ParallelConsumer::build().await?);
        }
        if arms.runs(restate::NAME, &[StepChoice::Http]) {
            restate::install().await?;
        }
        Ok(arms)
    }

    /// True if an arm of this name runs, which exists for these steps.
    fn runs(&self, arm: &str, steps: &[StepChoice]) -> bool {
        steps.contains(&self.step) && self.rounds.wants(arm)
    }

    /// The arms of Parallel Consumer.
    fn peers(&self) -> impl Iterator<Item = (&'static str, usize)> {
        parallel_consumer::ARMS.into_iter().filter(|(name, _)| self.runs(name, &[StepChoice::Http]))
    }

    /// Runs each arm once.
    ///
    /// # Errors
    ///
    /// An arm has not done its work.
    pub(super) async fn run(&self, at: &DispatchRound<'_>, samples: &mut Vec<Sample>) -> anyhow::Result<()> {
        use StepChoice::{BuiltIn, Database, Http, Mail};
        let DispatchRound { services, topic, scenario, sink, round } = *at;
        if self.runs(usher::KAFKA, &[Http, Mail, Database]) {
            samples.push(self.kafka.usher(at).await.context(usher::KAFKA)?);
        }
        if let Some(pooler) = services.pooler.as_ref().filter(|_| self.runs(usher::POOLED, &[Http])) {
            samples.push(self.kafka.usher_behind(pooler, at).await.context(usher::POOLED)?);
        }
        if let Some(embedded) = &self.embedded {
            samples.push(embedded.usher(scenario, sink, round).await.context(usher::EMBEDDED)?);
        }
        for (parallel_consumer, arm) in
            self.parallel_consumer.iter().flat_map(|it| self.peers().map(move |arm| (it, arm)))
        {
            let sample = parallel_consumer.run(services, topic, scenario, sink, round, arm).await;
            samples.push(sample.context(arm.0)?);
        }
        for arm in [built_in::ONE, built_in::ALL].into_iter().filter(|arm| self.runs(arm, &[BuiltIn])) {
            samples.push(built_in::run(at, arm, self.kafka.prefix()).await.context(arm)?);
        }
        if self.runs(floor::POSTGRES, &[Http, Mail]) {
            samples.push(floor::on_postgres(at).await.context(floor::POSTGRES)?);
        }
        if self.runs(floor::SQLITE, &[Http]) {
            samples.push(floor::on_sqlite(at).await.context(floor::SQLITE)?);
        }
        if self.runs(restate::NAME, &[Http]) {
            samples.push(restate::run(at).await.context(restate::NAME)?);
        }
        if self.runs(upserts::NAME, &[Database]) {
            samples.push(upserts::run(services, scenario, round).await.context(upserts::NAME)?);
        }
        if self.runs(one_by_one::NAME, &[Http]) {
            samples.push(one_by_one::run(services, topic, scenario, sink, round).await.context(one_by_one::NAME)?);
        }
        if self.runs(bare_sql::NAME, &[Http, Mail]) {
            samples.push(bare_sql::run(services, scenario, round).await.context(bare_sql::NAME)?);
        }
        if self.runs(drain::NAME, &[Http, Mail, Database]) {
            samples.push(drain::run(&services.kafka, topic.to_owned(), scenario, round).await.context(drain::NAME)?);
        }
        Ok(())
    }
}

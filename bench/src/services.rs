//! The services that the arms use: their addresses, and the processes behind them.

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};

use crate::meter::Processes;
use crate::sockets;

/// A connection pooler in transaction mode before the same Postgres.
pub(crate) struct BenchPooler {
    /// URL of a database, by way of the pooler.
    pub(crate) url: String,
    /// The pooler's process.
    pub(crate) process: Processes,
}

/// Addresses of the services, and their processes.
pub(crate) struct BenchServices {
    /// Bootstrap server of Kafka.
    pub(crate) kafka: String,
    /// URL of a database of Postgres.
    pub(crate) postgres: String,
    /// PgBouncer; absent if no address names one.
    pub(crate) pooler: Option<BenchPooler>,
    /// The broker's process.
    pub(crate) broker: Processes,
    /// The server process of Postgres, with its children.
    pub(crate) postmaster: Processes,
}

impl BenchPooler {
    fn find(url: String) -> anyhow::Result<Self> {
        let (_, rest) = url.rsplit_once(':').context("no port in the pooler's address")?;
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let process = sockets::listener(port.parse().context("no port in the pooler's address")?);
        Ok(Self { url, process: Processes::One(process.context("the pooler runs elsewhere")?) })
    }
}

impl BenchServices {
    /// Finds the processes of Kafka, of Postgres and of the pooler, if there is one, which must run on this machine.
    ///
    /// # Errors
    ///
    /// A service does not answer, or runs elsewhere.
    pub(crate) async fn find(kafka: String, postgres: String, pooler: Option<String>) -> anyhow::Result<Self> {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&postgres).await?;
        let (backend,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let status = std::fs::read_to_string(format!("/proc/{backend}/status")).context("Postgres runs elsewhere")?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent of a backend")?;
        let postmaster = Processes::Family(parent.trim().parse()?);
        let port = kafka.rsplit_once(':').context("no port in Kafka's address")?.1.parse()?;
        let broker = Processes::One(sockets::listener(port).context("Kafka runs elsewhere")?);
        let pooler = pooler.map(BenchPooler::find).transpose()?;
        Ok(Self { kafka, postgres, pooler, broker, postmaster })
    }

    /// Deletes a topic.
    ///
    /// # Errors
    ///
    /// Kafka is unavailable, or has no such topic.
    pub(crate) async fn delete_topic(&self, topic: &str) -> anyhow::Result<()> {
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &self.kafka).create()?;
        let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await?;
        for topic in deleted {
            topic.map_err(|(name, code)| anyhow::anyhow!("topic {name} is not deleted: {code}"))?;
        }
        Ok(())
    }
}

//! The address of the log: `kafka://host:9092[,host:9092]` or `sqlite:PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogAddress {
    /// An Apache Kafka cluster.
    Kafka {
        /// Bootstrap servers, comma-separated, as librdkafka takes them.
        brokers: String,
    },
    /// A SQLite file on this machine.
    Sqlite {
        /// Path of the file, which is created if missing.
        path: PathBuf,
    },
}

/// The given text is not the address of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log: it may be kafka://host:9092[,host:9092] or sqlite:PATH")]
pub struct InvalidAddress(String);

impl FromStr for LogAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAddress(text.to_owned());
        if let Some(brokers) = text.strip_prefix("kafka://") {
            let valid = |broker: &str| {
                broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            };
            let brokers = brokers.trim_end_matches('/');
            if brokers.split(',').all(valid) {
                return Ok(Self::Kafka { brokers: brokers.to_owned() });
            }
        } else if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite { path: PathBuf::from(path.strip_prefix("//").unwrap_or(path)) });
        }
        Err(invalid())
    }
}

impl fmt::Display for LogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka { brokers } => write!(f, "kafka://{brokers}"),
            Self::Sqlite { path } => write!(f, "sqlite:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in ["kafka://a:9092", "kafka://a:9092,b.example:9093", "sqlite:/var/lib/usher/log.db"] {
            let address: LogAddress = text.parse().expect("a valid address");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_says_what_would_be() {
        for bad in ["", "a:9092", "kafka://", "kafka://a", "kafka://a:b", "sqlite:", "postgres://x"] {
            let error = bad.parse::<LogAddress>().expect_err(bad).to_string();
            assert!(error.contains("kafka://host:9092") && error.contains("sqlite:PATH"), "{error}");
        }
    }
}

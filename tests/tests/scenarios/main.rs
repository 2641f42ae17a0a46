//! End-to-end guarantees, each tested with both backends: embedded, and Kafka with Postgres.
#![allow(clippy::unwrap_used)]

mod brokers;
mod built_in;
mod clock;
mod crashes;
mod data;
mod doors;
mod farewell;
mod files;
mod first_run;
mod full_disk;
mod help;
mod hostile;
mod instances;
mod logs;
mod memory;
mod messages;
mod old_news;
mod operators;
mod order;
mod outages;
mod records;
mod refusals;
mod refused;
mod settings;
mod state;
mod suppression;
mod tools;
mod troubles;
mod typed;
mod up;
mod ways_on;

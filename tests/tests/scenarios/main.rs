//! What must hold end to end, each on both pairs: the embedded one, and Kafka with Postgres.
#![allow(clippy::unwrap_used)]

mod built_in;
mod crashes;
mod farewell;
mod first_run;
mod full_disk;
mod instances;
mod memory;
mod operators;
mod order;
mod outages;
mod reach;
mod records;
mod refusals;
mod refused;
mod state;
mod tools;
mod up;

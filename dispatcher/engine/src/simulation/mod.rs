//! A model of everything around the engine, and a checker of the engine's promises.

mod attempt;
mod chaos;
mod checker;
mod destination;
mod group;
mod happening;
mod log;
mod plan;
mod promises;
mod reading;
mod refusal;
mod replica;
mod store;
mod store_queue;
mod trouble;
mod world;

//! Tests of the routes as a whole, without a socket, on a SQLite store in a temporary folder.

mod access;
mod actions;
mod api;
mod crawl;
mod live;
mod pages;
pub(crate) mod support;

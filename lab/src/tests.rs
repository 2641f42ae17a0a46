//! Tests the lab from outside: a real server on loopback, accessed over HTTP.

mod support;

mod resend;
mod samples;
mod smtp;
mod stripe;

mod algolia;
mod clerk;
mod mailchimp;
mod novu;
mod nylas;
mod receivers;
mod webhook;

mod controls;
mod faults;
mod traffic;

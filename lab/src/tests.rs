//! The lab from outside: a real server on loopback, asked over HTTP.

mod support;

mod resend;
mod stripe;

mod controls;
mod faults;
mod traffic;

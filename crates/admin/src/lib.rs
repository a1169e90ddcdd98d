//! The routers of the admin listener and of the metrics/status listener:
//! probes, health, what is configured, metrics, and the description of it all.
//!
//! Everything is answered from memory. Listening, TLS and shutdown belong to
//! the binary.

mod admin;
mod auth;
mod config_metrics;
mod health;
mod kinds;
mod openapi;
mod respond;
mod routes;
mod status;
mod viewer;

#[cfg(test)]
mod tests;

pub use admin::{AdminState, BoxFuture, Playground, admin_router};
pub use status::{StatusState, status_router};

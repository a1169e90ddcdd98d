//! The routers of the admin listener and of the metrics/status listener:
//! probes, health, the resources and their changes, metrics, and the
//! description of it all.
//!
//! Reads are answered from memory; writes go through the editor of the
//! configuration. Listening, TLS and shutdown belong to the binary.

mod admin;
mod auth;
mod batch;
mod call;
mod config_metrics;
mod failure;
mod health;
mod openapi;
mod respond;
mod routes;
mod status;
mod trail;
mod viewer;
mod write;

#[cfg(test)]
mod tests;

pub use admin::{AdminState, BoxFuture, Peer, Playground, Revisions, admin_router};
pub use auth::AdminKey;
pub use status::{StatusState, status_router};

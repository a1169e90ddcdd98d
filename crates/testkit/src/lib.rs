//! Development only: what a black-box test of the gateway needs.
//!
//! * [`FakeProvider`] is an OpenAI-compatible upstream that sends exactly the bytes a test scripts, and records what it got.
//! * [`Gateway`] starts the real binary on free ports and watches it.
//! * [`Admin`] is its admin API.
//! * [`Etcd`] is a real one.
//! * [`Client`] and [`RawConnection`] talk to it, politely and impolitely.
//!
//! These types fail a test by panicking with the facts (log lines, what was expected), so that a test reads as a list of
//! statements. Every wait has a deadline; nothing synchronises by sleeping.

pub mod admin;
pub mod client;
pub mod etcd;
pub mod gateway;
pub mod metrics;
pub mod poll;
pub mod provider;
pub mod raw;
pub mod sse;
pub mod tls;

pub use admin::{Admin, Answer};
pub use client::{Client, Reply as Response, Request};
pub use etcd::Etcd;
pub use gateway::{Exit, Gateway, GatewayBuilder, LogLine, key_hash};
pub use metrics::{Sample, Samples};
pub use poll::{DEADLINE, eventually, eventually_in, within};
pub use provider::{Closed, FakeProvider, Gate, Recorded, Reply, Stream};
pub use raw::{RawConnection, RawReply};
pub use sse::{SseFrame, SseParser};
pub use tls::{Authority, TlsFront};

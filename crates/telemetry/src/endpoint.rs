//! What telemetry needs to know about an endpoint.

use std::hash::{Hash, Hasher};

/// The telemetry side of a row of the endpoint table. Rows live in a static
/// table, so every text in them is known at compile time.
#[derive(Debug)]
pub struct EndpointInfo {
    /// Value of the `endpoint` label.
    pub label: &'static str,
    /// Value of the `inbound_protocol` label.
    pub protocol: &'static str,
    /// Value of the `handler` field of the provider call line.
    pub handler: &'static str,
    /// Whether requests appear in the access log and the request families.
    pub counted: bool,
    /// Whether requests appear in the `aisix_llm_*` request families.
    pub llm: bool,
    /// Whether token usage is counted.
    pub tokens: bool,
    /// Whether the end-to-end latency histogram is fed.
    pub e2e: bool,
    /// Whether the time-to-first-token series are fed by streams.
    pub ttft: bool,
}

/// A row as a map key: two keys are equal when they are the same row.
#[derive(Clone, Copy)]
pub(crate) struct EndpointRef(pub(crate) &'static EndpointInfo);

impl PartialEq for EndpointRef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for EndpointRef {}

impl Hash for EndpointRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::hash(self.0, state);
    }
}

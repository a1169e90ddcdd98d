//! Identify: who calls.

use std::time::SystemTime;

use aisix_core::{Error, Reason};
use aisix_policy::identity::Denial;
use aisix_telemetry::{AuthDecision, Shard};

use super::Accepted;
use crate::snapshot::{Caller, Snapshot};

/// Finds the caller's key.
pub(crate) fn identify(accepted: &mut Accepted, snapshot: &Snapshot, shard: &Shard) -> Result<Caller, Error> {
    match snapshot.keys.identify(&accepted.headers, SystemTime::now()) {
        Ok(caller) => {
            shard.auth(AuthDecision { method: "api_key", result: "allowed", reason: "none" });
            accepted.record.caller = Some(caller.extra.label);
            accepted.record.api_key_id = Some(caller.key.id.clone());
            Ok(caller)
        }
        Err(denial) => {
            shard.auth(AuthDecision { method: denial.method, result: "denied", reason: denial.reason });
            log_denial(accepted, &denial);
            Err(denial.error)
        }
    }
}

/// Scanners are noise; a real key that no longer works is not.
fn log_denial(accepted: &Accepted, denial: &Denial) {
    let Denial { method, reason, key_id, error } = denial;
    let path = accepted.uri.path();
    let http_method = accepted.method.as_str();
    let request_id = accepted.record.request_id();
    let source_ip = accepted.client_ip;
    let api_key_id = key_id.as_deref();
    accepted.record.scope(|| match error.reason() {
        Reason::MissingCredential | Reason::UnknownKey => tracing::debug!(
            target: "aisix::auth", method, reason, http_method, %path, %request_id, %source_ip,
            "rejected credential"
        ),
        _ => tracing::warn!(
            target: "aisix::auth", method, reason, http_method, %path, %request_id, %source_ip, api_key_id,
            "rejected credential"
        ),
    });
}

//! Resolve: which model the caller named, and whether it may use it.

use std::{borrow::Cow, sync::Arc};

use aisix_core::{Error, Reason};

use super::{Accepted, Call};
use crate::snapshot::{Caller, ModelEntry, Snapshot};

/// The model the caller named.
pub(crate) struct Addressed {
    pub(crate) entry: Arc<ModelEntry>,
    /// The upstream model that the name stands for.
    pub(crate) upstream_model: String,
}

/// Longest model name that is repeated in an answer, in characters.
const MAX_SHOWN: usize = 256;

/// Model exists, caller may use it, client address is admitted: in this order.
pub(crate) fn resolve(
    accepted: &mut Accepted,
    snapshot: &Snapshot,
    caller: &Caller,
    call: &Call,
) -> Result<Addressed, Error> {
    let name = &call.head.model;
    let (entry, upstream_model) = snapshot
        .resolve(name)
        .ok_or_else(|| Error::new(Reason::ModelNotFound, format!("model \"{}\" not found", shown(name))))?;
    accepted.record.model = entry.label;
    if !caller.key.may_use(name) {
        let text = format!("API key is not allowed to use model \"{}\"", shown(name));
        return Err(Error::new(Reason::ModelForbidden, text));
    }
    if !entry.admits(Some(accepted.client_ip)) {
        let text = "Access denied: your client IP is not allowed to access this model";
        return Err(Error::new(Reason::IpRestricted, text).with_detail(format!(
            "{} is outside the allowed_cidrs of model \"{}\"",
            accepted.client_ip,
            shown(name)
        )));
    }
    Ok(Addressed { entry: entry.clone(), upstream_model })
}

/// The name that the caller sent, within bounds.
fn shown(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(MAX_SHOWN) {
        None => name.into(),
        Some((end, _)) => format!("{}…", &name[..end]).into(),
    }
}

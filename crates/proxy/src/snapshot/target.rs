//! A dispatchable model: where it is, how to speak to it, and what was learned
//! of it so far.

use std::{sync::Arc, time::Duration};

use aisix_config::{Adapter, Direct, Model, ProviderKey, Stored, StreamDoneMarker};
use aisix_core::{Capture, Error, Operation, Price, Reason, Secret};
use aisix_telemetry::{CooldownPolicy, HealthTable, ModelHealth, TargetId, TargetLabels, Telemetry};
use aisix_wire::{Address, BodyOverrides, Format, adapters};
use http::{HeaderMap, HeaderValue, Uri, header};

use super::headers::{HeaderRules, Names};
use crate::upstream::{KeyTrust, Origin};

/// Where requests of a target go.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A server; the URI is in origin form.
    Server { origin: Arc<Origin>, uri: Uri },
    /// The built-in provider.
    Echo,
}

/// What a request to the target looks like.
pub(crate) struct Prepared {
    pub(crate) format: &'static dyn Format,
    pub(crate) destination: Destination,
    /// Headers the gateway owns, the credential included.
    pub(crate) headers: HeaderMap,
}

/// A direct model on its provider key.
pub(crate) struct Target {
    pub(crate) provider: Arc<str>,
    pub(crate) label: TargetId,
    pub(crate) health: Arc<ModelHealth>,
    pub(crate) cooldown: CooldownPolicy,
    pub(crate) body: BodyOverrides,
    pub(crate) headers: HeaderRules,
    /// Own deadline; zero means explicitly none.
    pub(crate) timeout: Option<Duration>,
    /// Own longest gap in a stream.
    pub(crate) stream_timeout: Option<Duration>,
    pub(crate) retries: Option<u32>,
    pub(crate) price: Option<Price>,
    pub(crate) reasoning_field: Option<Arc<[String]>>,
    pub(crate) done_marker: Option<StreamDoneMarker>,
    model_name: String,
    chat: Result<Prepared, Error>,
    /// The provider's credential, to be struck out of what it says.
    secret: Option<Secret<String>>,
}

impl Target {
    pub(super) fn compile(
        model: &Stored<Model>,
        direct: Direct<'_>,
        key: Option<&Stored<ProviderKey>>,
        telemetry: &Telemetry,
        health: &HealthTable,
    ) -> Self {
        let value = &model.value;
        let request = key.map(|key| key.value.request.clone()).unwrap_or_default();
        let response = key.map(|key| key.value.response.clone()).unwrap_or_default();
        let names = Names {
            model_id: model.id.to_string(),
            model_name: value.display_name.clone(),
            provider_key_id: direct.provider_key_id.to_owned(),
            provider_key_name: key.map(|key| key.value.display_name.clone()).unwrap_or_default(),
        };
        Self {
            provider: direct.provider.into(),
            label: telemetry.target(TargetLabels {
                model: &value.display_name,
                provider: direct.provider,
                upstream_model: direct.model_name,
                provider_key_id: direct.provider_key_id,
                provider_key_name: &names.provider_key_name,
            }),
            health: health.model(&model.id),
            cooldown: cooldown(value),
            body: BodyOverrides {
                renames: request.param_renames.clone(),
                temperature_max: request.param_constraints.temperature_max,
                temperature_min: request.param_constraints.temperature_min,
                defaults: request
                    .default_body_fields
                    .iter()
                    .map(|(k, v)| (k.clone(), v.to_string()))
                    .collect(),
                flatten_text_parts: response.content_list_to_string,
            },
            headers: HeaderRules::compile(&request, names),
            timeout: value.timeout,
            stream_timeout: value.stream_timeout.filter(|limit| !limit.is_zero()),
            retries: value.retries,
            price: value.cost,
            reasoning_field: response.reasoning_field.as_deref().and_then(reasoning_path),
            done_marker: response.stream_done_marker,
            model_name: direct.model_name.to_owned(),
            secret: key.map(|key| key.value.api_key.clone()),
            chat: match key {
                Some(key) => prepare(Operation::Chat, &key.value),
                None => Err(Error::bad_request(format_args!(
                    "model \"{}\" references unknown provider_key_id",
                    value.display_name
                ))),
            },
        }
    }

    /// The upstream model that a name stands for.
    pub(super) fn upstream_model(&self, capture: Capture<'_>) -> String {
        match capture {
            Capture::Star(text) => self.model_name.replacen('*', text, 1),
            Capture::Exact => self.model_name.clone(),
        }
    }

    /// The credential, to be struck out of what the provider says.
    pub(crate) fn secret(&self) -> &str {
        self.secret.as_ref().map_or("", |secret| secret.expose().trim())
    }

    /// How an operation is sent, or why it cannot be.
    pub(crate) fn prepared(&self, operation: Operation) -> Result<&Prepared, Error> {
        match operation {
            Operation::Chat => self.chat.as_ref().map_err(Clone::clone),
            Operation::ListModels => Err(Error::new(Reason::Internal, "internal error")
                .with_detail("listing models is answered locally")),
        }
    }
}

fn prepare(operation: Operation, key: &ProviderKey) -> Result<Prepared, Error> {
    let adapter = adapters::of(&key.provider, key.adapter.map(adapter_name))?;
    let format = adapter.format(operation).ok_or_else(|| {
        Error::new(Reason::ProviderUnavailable, "this provider does not support the operation")
    })?;
    let mut headers = HeaderMap::with_capacity(12);
    if let Some((name, value)) = adapter.credential(key.api_key.expose())? {
        headers.insert(name, value);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let destination = match adapter.address(operation, key.api_base.as_deref(), &key.provider)? {
        Address::Echo => Destination::Echo,
        Address::Http(uri) => {
            let unusable = || {
                Error::new(Reason::UpstreamConfig, "invalid upstream configuration: api_base is not a URL")
            };
            let authority = uri.authority().ok_or_else(unusable)?;
            // Credentials in a URL would otherwise travel in the Host header.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            headers.insert(header::HOST, HeaderValue::try_from(host).map_err(|_| unusable())?);
            let https = uri.scheme_str() == Some("https");
            let tls = key.tls.as_ref();
            let origin = Origin {
                https,
                host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
                trust: KeyTrust {
                    ca_cert: tls
                        .and_then(|tls| tls.ca_cert.as_deref())
                        .filter(|pem| !pem.trim().is_empty())
                        .map(Into::into),
                    insecure: tls.is_some_and(|tls| !tls.verify),
                },
            };
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            Destination::Server { origin: Arc::new(origin), uri: path.parse().map_err(|_| unusable())? }
        }
    };
    Ok(Prepared { format, destination, headers })
}

fn adapter_name(adapter: Adapter) -> &'static str {
    match adapter {
        Adapter::OpenAi => "openai",
        Adapter::Anthropic => "anthropic",
        Adapter::Bedrock => "bedrock",
        Adapter::Vertex => "vertex",
        Adapter::AzureOpenAi => "azure-openai",
    }
}

/// `delta.a.b` without its first part.
fn reasoning_path(field: &str) -> Option<Arc<[String]>> {
    let path: Vec<String> = field.strip_prefix("delta.")?.split('.').map(str::to_owned).collect();
    Some(path.into())
}

fn cooldown(model: &Model) -> CooldownPolicy {
    let setting = &model.cooldown;
    CooldownPolicy {
        enabled: setting.enabled,
        default: setting.default,
        max: setting.max,
        honor_retry_after: setting.honor_retry_after,
        trigger_statuses: setting.trigger_statuses.clone(),
        on_timeout: setting.trigger_on_timeout,
        on_transport: setting.trigger_on_transport,
    }
}

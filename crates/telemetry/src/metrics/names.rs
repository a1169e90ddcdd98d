//! Every metric name.

// Request families.
/// Proxied requests by provider, model, status and outcome.
pub const REQUESTS: &str = "aisix_requests_total";
/// Handler time by provider, model and status.
pub const REQUEST_DURATION: &str = "aisix_request_duration_seconds";
/// Proxied requests, all labels.
pub const PROXY_REQUESTS: &str = "aisix_proxy_requests_total";
/// Proxied requests that did not succeed, all labels.
pub const PROXY_FAILED_REQUESTS: &str = "aisix_proxy_failed_requests_total";
/// Handler time, all labels.
pub const PROXY_REQUEST_DURATION: &str = "aisix_proxy_request_duration_seconds";
/// Model inference requests, all labels.
pub const LLM_REQUESTS: &str = "aisix_llm_requests_total";
/// Handler time of model inference requests.
pub const LLM_REQUEST_DURATION: &str = "aisix_llm_request_duration_seconds";
/// Requests whose handler has not returned yet.
pub const IN_FLIGHT: &str = "aisix_proxy_in_flight_requests";
/// Requests whose client left before the response head.
pub const CLIENT_CANCELLED: &str = "aisix_proxy_client_cancelled_requests_total";
/// Requests refused for their declared length.
pub const BODY_LIMIT_REJECTIONS: &str = "aisix_proxy_request_body_limit_rejections_total";

// Tokens, spend, latency.
/// Tokens by provider and model.
pub const TOKENS_CONSUMED: &str = "aisix_tokens_consumed_total";
/// Input tokens.
pub const LLM_INPUT_TOKENS: &str = "aisix_llm_input_tokens_total";
/// Output tokens.
pub const LLM_OUTPUT_TOKENS: &str = "aisix_llm_output_tokens_total";
/// Input, output and cache tokens.
pub const LLM_TOTAL_TOKENS: &str = "aisix_llm_total_tokens_total";
/// Spend in micro-USD.
pub const LLM_SPEND: &str = "aisix_llm_spend_micro_usd_total";
/// Tokens by client program.
pub const LLM_TOKENS_BY_CLIENT: &str = "aisix_llm_tokens_by_client_total";
/// Time to the first streamed frame, all labels.
pub const LLM_TTFT: &str = "aisix_llm_time_to_first_token_seconds";
/// Time from request to the end of the response.
pub const E2E_LATENCY: &str = "aisix_request_e2e_latency_seconds";
/// Time to the first streamed frame.
pub const TTFT: &str = "aisix_request_ttft_seconds";

// Upstream attempts.
/// Attempts that reached the network.
pub const DEPLOYMENT_REQUESTS: &str = "aisix_deployment_requests_total";
/// Attempts that succeeded.
pub const DEPLOYMENT_SUCCESSES: &str = "aisix_deployment_success_responses_total";
/// Attempts that failed.
pub const DEPLOYMENT_FAILURES: &str = "aisix_deployment_failure_responses_total";
/// 0 in rotation, 2 cooling down.
pub const DEPLOYMENT_STATE: &str = "aisix_deployment_state";
/// Entries into cooldown.
pub const DEPLOYMENT_COOLED_DOWN: &str = "aisix_deployment_cooled_down_total";

/// Judgements on credentials.
pub const AUTH_DECISIONS: &str = "aisix_auth_decisions_total";

// Configuration, written by the status listener.
/// Whether the last load succeeded without a refused resource.
pub const CONFIG_LAST_RELOAD_SUCCESSFUL: &str = "aisix_config_last_reload_successful";
/// When the configuration was last loaded.
pub const CONFIG_LAST_RELOAD_TIMESTAMP: &str = "aisix_config_last_reload_success_timestamp_seconds";
/// Loads of the configuration.
pub const CONFIG_RELOADS: &str = "aisix_config_reloads_total";
/// Loads that failed, by reason.
pub const CONFIG_RELOAD_FAILURES: &str = "aisix_config_reload_failures_total";
/// Refused resources by kind.
pub const CONFIG_REJECTED: &str = "aisix_config_rejected_resources";
/// Resources with fields that are passed over, by kind.
pub const CONFIG_PARTIALLY_COMPATIBLE: &str = "aisix_config_partially_compatible_resources";
/// Resources served from an older value, by kind.
pub const CONFIG_STALE_SERVED: &str = "aisix_config_stale_served_resources";
/// Whether the store is reached.
pub const CONFIG_SOURCE_CONNECTED: &str = "aisix_config_source_connected";
/// The newest revision that the store has told.
pub const CONFIG_OBSERVED_REVISION: &str = "aisix_config_observed_revision";
/// The revision in force.
pub const CONFIG_APPLIED_REVISION: &str = "aisix_config_applied_revision";
/// The hash of the configuration in use.
pub const CONFIG_HASH: &str = "aisix_config_hash_info";

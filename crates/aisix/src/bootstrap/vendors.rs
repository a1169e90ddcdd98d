//! The vendors whose credentials are recognised in the environment.

use aisix_core::Secret;

use super::{Surroundings, offer::Offer};

/// A row: a vendor that is reached over the OpenAI protocol.
pub(super) struct Vendor {
    /// What its models and its provider key are called.
    pub(super) name: &'static str,
    /// Variables that may hold the credential; the first that is set counts.
    pub(super) variables: &'static [&'static str],
    /// A variable that may hold another root.
    base_variable: Option<&'static str>,
    /// Its root, for the OpenAI protocol.
    pub(super) api_base: &'static str,
    /// The vendor label of the provider key.
    label: &'static str,
    /// A model that suits a first question.
    example: &'static str,
}

const fn row(
    name: &'static str,
    variables: &'static [&'static str],
    api_base: &'static str,
    example: &'static str,
) -> Vendor {
    Vendor { name, variables, base_variable: None, api_base, label: name, example }
}

pub(super) const VENDORS: &[Vendor] = &[
    Vendor {
        base_variable: Some("OPENAI_BASE_URL"),
        ..row("openai", &["OPENAI_API_KEY"], "https://api.openai.com/v1", "gpt-4o-mini")
    },
    // The label `anthropic` stands for Anthropic's own protocol.
    Vendor {
        label: "claude",
        ..row("anthropic", &["ANTHROPIC_API_KEY"], "https://api.anthropic.com/v1", "claude-haiku-4-5")
    },
    row(
        "gemini",
        &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "gemini-2.5-flash",
    ),
    row("deepseek", &["DEEPSEEK_API_KEY"], "https://api.deepseek.com", "deepseek-flash"),
    row("groq", &["GROQ_API_KEY"], "https://api.groq.com/openai/v1", "openai/gpt-oss-20b"),
    row("mistral", &["MISTRAL_API_KEY"], "https://api.mistral.ai/v1", "mistral-small-latest"),
    row("openrouter", &["OPENROUTER_API_KEY"], "https://openrouter.ai/api/v1", "openai/gpt-4o-mini"),
    row("together", &["TOGETHER_API_KEY"], "https://api.together.ai/v1", "openai/gpt-oss-20b"),
    row("xai", &["XAI_API_KEY"], "https://api.x.ai/v1", "grok-4.3"),
    row("cerebras", &["CEREBRAS_API_KEY"], "https://api.cerebras.ai/v1", "gpt-oss-120b"),
    row(
        "fireworks",
        &["FIREWORKS_API_KEY"],
        "https://api.fireworks.ai/inference/v1",
        "accounts/fireworks/models/gpt-oss-120b",
    ),
    row("perplexity", &["PERPLEXITY_API_KEY"], "https://api.perplexity.ai", "sonar"),
    row("moonshot", &["MOONSHOT_API_KEY"], "https://api.moonshot.ai/v1", "kimi-k2.6"),
    row(
        "dashscope",
        &["DASHSCOPE_API_KEY"],
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "qwen-plus",
    ),
    row("nvidia", &["NVIDIA_API_KEY"], "https://integrate.api.nvidia.com/v1", "meta/llama-3.1-8b-instruct"),
];

impl Vendor {
    /// What it offers, if its credential is there.
    pub(super) fn offer(&self, around: &Surroundings) -> Option<Offer> {
        let set = |name: &&'static str| around.variable(name).map(|value| (*name, value));
        let (variable, secret) = self.variables.iter().find_map(set)?;
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            tracing::warn!("{variable} is ignored: a credential has no blanks and only ASCII characters");
            return None;
        }
        let base = self.base_variable.and_then(|name| around.variable(name)).unwrap_or(self.api_base);
        Some(Offer {
            name: self.name,
            origin: variable.to_owned(),
            label: self.label,
            api_base: Some(base.to_owned()),
            secret: Secret::new(secret.to_owned()),
            model: format!("{}/*", self.name),
            upstream: "*",
            example: format!("{}/{}", self.name, self.example),
        })
    }
}

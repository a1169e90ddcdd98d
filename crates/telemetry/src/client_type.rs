//! Which program a `User-Agent` stands for.

use std::{borrow::Cow, sync::Arc};

use foldhash::{HashMap, HashMapExt};
use regex::Regex;

/// An operator's rule: user agents that match the pattern are this client.
#[derive(Clone, Debug)]
pub struct ClientTypeRule {
    /// Unanchored pattern, compiled to ignore case.
    pub pattern: Regex,
    /// Value of the `client_type` label.
    pub client: String,
}

/// Built-in rules: the first needle found in the lower-cased text wins.
const BUILT_IN: &[(&str, &str)] = &[
    ("claude-cli", "claude-code"),
    ("claude-code", "claude-code"),
    ("codex", "codex"),
    ("cline", "cline"),
    ("roo-code", "roo-code"),
    ("roocode", "roo-code"),
    ("kilo-code", "kilocode"),
    ("kilocode", "kilocode"),
    ("zoo-code", "zoo-code"),
    ("zoocode", "zoo-code"),
    ("githubcopilot", "github-copilot"),
    ("cursor", "cursor"),
    ("opencode", "opencode"),
    ("qwencode", "qwen-code"),
    ("geminicli", "gemini-cli"),
    ("charm-crush", "crush"),
    ("zed/", "zed"),
    ("aider", "aider"),
    ("openai-python", "openai-python"),
    ("openai/python", "openai-python"),
    ("openai-node", "openai-node"),
    ("openai/js", "openai-node"),
    ("anthropic-sdk-python", "anthropic-python"),
    ("anthropic/python", "anthropic-python"),
    ("anthropic-sdk-typescript", "anthropic-typescript"),
    ("anthropic/js", "anthropic-typescript"),
    ("langchain", "langchain"),
    ("llama-index", "llamaindex"),
    ("llama_index", "llamaindex"),
    ("llamaindex", "llamaindex"),
    ("litellm", "litellm"),
    ("ai-sdk/provider-utils", "vercel-ai-sdk"),
    ("curl", "curl"),
    ("python-requests", "python-requests"),
    ("python-httpx", "httpx"),
    ("httpx", "httpx"),
    ("aiohttp", "aiohttp"),
    ("okhttp", "okhttp"),
    ("go-http-client", "go-http-client"),
    ("node-fetch", "node"),
    ("undici", "node"),
    ("axios", "node"),
    ("postmanruntime", "postman"),
    ("mozilla", "browser"),
];

/// Only this much of a user agent is looked at, so that a long header cannot
/// make 64 patterns expensive.
const MAX_LOOKED_AT: usize = 1024;

/// A `client_type` value: an index into [`ClientTypes::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientType(u16);

impl ClientType {
    pub(crate) const UNKNOWN: Self = Self(0);
    pub(crate) const OTHER: Self = Self(1);
}

/// All rules and the names they give.
pub(crate) struct ClientTypes {
    rules: Vec<(Regex, ClientType)>,
    built_in: Vec<(&'static str, ClientType)>,
    names: Vec<Cow<'static, str>>,
}

impl ClientTypes {
    pub(crate) fn new(rules: Vec<ClientTypeRule>) -> Self {
        let mut types = Self {
            rules: Vec::new(),
            built_in: Vec::new(),
            names: vec![Cow::Borrowed("unknown"), Cow::Borrowed("other")],
        };
        for rule in rules {
            let client = types.intern(Cow::Owned(rule.client));
            types.rules.push((rule.pattern, client));
        }
        for (needle, name) in BUILT_IN {
            let client = types.intern(Cow::Borrowed(name));
            types.built_in.push((needle, client));
        }
        types
    }

    fn intern(&mut self, name: Cow<'static, str>) -> ClientType {
        let found = self.names.iter().position(|known| *known == name);
        let index = found.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        // At most 64 rules and the built-ins: far below the limit.
        ClientType(index as u16)
    }

    pub(crate) fn name(&self, client: ClientType) -> &str {
        &self.names[usize::from(client.0)]
    }

    pub(crate) fn classify(&self, user_agent: &[u8]) -> ClientType {
        let looked_at = &user_agent[..user_agent.len().min(MAX_LOOKED_AT)];
        let text = String::from_utf8_lossy(looked_at);
        if text.trim().is_empty() {
            return ClientType::UNKNOWN;
        }
        if let Some((_, client)) = self.rules.iter().find(|(rule, _)| rule.is_match(&text)) {
            return *client;
        }
        let text = text.to_ascii_lowercase();
        let found = self.built_in.iter().find(|(n, _)| text.contains(n));
        found.map_or(ClientType::OTHER, |(_, client)| *client)
    }
}

/// Remembers the verdict on the user agents seen lately. A caller who made all
/// of them collide would still only make a lookup go through this few.
pub(crate) struct ClientTypeCache {
    types: Arc<ClientTypes>,
    seen: HashMap<Box<[u8]>, ClientType>,
}

impl ClientTypeCache {
    const MAX_ENTRIES: usize = 512;
    const MAX_KEY: usize = 256;

    pub(crate) fn new(types: Arc<ClientTypes>) -> Self {
        Self { types, seen: HashMap::new() }
    }

    pub(crate) fn classify(&mut self, user_agent: Option<&[u8]>) -> ClientType {
        let Some(user_agent) = user_agent else {
            return ClientType::UNKNOWN;
        };
        if let Some(client) = self.seen.get(user_agent) {
            return *client;
        }
        let client = self.types.classify(user_agent);
        if user_agent.len() <= Self::MAX_KEY {
            // Starting over is simpler than ageing entries, and a worker that
            // sees this many programs has no working set to protect.
            if self.seen.len() >= Self::MAX_ENTRIES {
                self.seen.clear();
            }
            self.seen.insert(user_agent.into(), client);
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, client: &str) -> ClientTypeRule {
        ClientTypeRule {
            pattern: regex::RegexBuilder::new(pattern).case_insensitive(true).build().unwrap(),
            client: client.into(),
        }
    }

    fn name(types: &ClientTypes, user_agent: &[u8]) -> String {
        types.name(types.classify(user_agent)).to_owned()
    }

    #[test]
    fn built_ins_apply_in_order() {
        let types = ClientTypes::new(Vec::new());
        for (user_agent, expected) in [
            ("claude-cli/1.0 (external)", "claude-code"),
            ("Mozilla/5.0 Cursor/0.4", "cursor"),
            ("OpenAI/Python 1.2.3", "openai-python"),
            ("OpenAI/JS 4.0", "openai-node"),
            ("langchain litellm", "langchain"),
            ("python-httpx/0.27", "httpx"),
            ("Go-http-client/1.1", "go-http-client"),
            ("PostmanRuntime/7", "postman"),
            ("Mozilla/5.0", "browser"),
            ("axios/1", "node"),
            ("something-else/1", "other"),
            ("   ", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(name(&types, user_agent.as_bytes()), expected, "{user_agent}");
        }
        assert_eq!(name(&types, b"\xff\xfe curl"), "curl");
    }

    #[test]
    fn operator_rules_come_first_and_never_see_blanks() {
        let types =
            ClientTypes::new(vec![rule("^acme", "acme-app"), rule("curl", "httpx"), rule(".*", "all")]);
        assert_eq!(name(&types, b"ACME/2 curl"), "acme-app");
        assert_eq!(name(&types, b"curl/8"), "httpx");
        assert_eq!(name(&types, b"x"), "all");
        assert_eq!(name(&types, b" "), "unknown");
        // One name is one id, wherever it comes from.
        let httpx = types.names.iter().filter(|n| *n == "httpx").count();
        assert_eq!(httpx, 1);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut cache = ClientTypeCache::new(Arc::new(ClientTypes::new(Vec::new())));
        for i in 0..2_000 {
            let user_agent = format!("curl/{i}");
            let client = cache.classify(Some(user_agent.as_bytes()));
            assert_eq!(cache.types.name(client), "curl");
            assert!(cache.seen.len() <= ClientTypeCache::MAX_ENTRIES);
        }
        cache.seen.clear();
        cache.classify(Some(&[b'x'; 300]));
        assert!(cache.seen.is_empty());
        assert_eq!(cache.classify(None), ClientType::UNKNOWN);
    }
}

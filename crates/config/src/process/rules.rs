//! Rules of the process configuration that concern more than one field.

use serde_json::Value;

use super::decode::Env;
use crate::schema::{Fault, Format, Path, Problem, Seg, compile};
use crate::tree::{Node, Origin};

/// Checks the rules. `document` holds what is in order, so a field that was
/// already refused is not refused again.
pub(super) fn check(root: &Node, document: &Value, env: Env<'_>, problems: &mut Vec<Problem>) {
    let mut rules = Rules { root, problems };
    rules.source(document);
    rules.etcd(document, env);
    rules.store(document, env);
    rules.admin(document);
    rules.admin_names(document);
    rules.rewrites(document);
    rules.pairs(document);
    rules.drain(document);
    let redis = &document["cache"]["redis"];
    if document["cache"]["backend"] == "redis" && redis.is_null() {
        rules.add("cache.backend", "= redis but cache.redis missing".into());
    }
}

struct Rules<'r> {
    root: &'r Node,
    problems: &'r mut Vec<Problem>,
}

impl Rules<'_> {
    fn add(&mut self, path: &str, rule: String) {
        let origin = self.root.at(path).map_or(Origin::Unknown, |node| node.origin.clone());
        self.push(Path::of(path), origin, rule);
    }

    fn push(&mut self, path: Path, origin: Origin, rule: String) {
        self.problems.push(Problem { path, origin, fault: Fault::Rule(rule) });
    }

    /// Exactly one source of resources.
    fn source(&mut self, document: &Value) {
        let file = document["resources_file"].as_str();
        let etcd = document["etcd"]["endpoints"].as_array().is_some_and(|e| !e.is_empty());
        let managed = document["managed"]["enabled"] == true;
        match file {
            Some(file) if file.trim().is_empty() => {
                self.add("resources_file", "must not be empty when set".into());
            }
            Some(_) => {
                if etcd {
                    let rule = "and etcd.endpoints are mutually exclusive: set one of them";
                    self.add("resources_file", rule.into());
                }
                if managed {
                    let rule = "cannot be combined with managed.enabled = true";
                    self.add("resources_file", rule.into());
                }
            }
            None if etcd || managed => {}
            // Of another type, which has been said.
            None if self.root.get("resources_file").is_some_and(|node| !node.is_null()) => {}
            // Whoever writes the block means etcd.
            None if document["etcd"]["endpoints"].is_array() => {
                let rule = "must contain at least one endpoint, or resources_file must be set; \
                            without both and without the etcd block the embedded store is used";
                self.add("etcd.endpoints", rule.into());
            }
            None => {}
        }
    }

    fn etcd(&mut self, document: &Value, env: Env<'_>) {
        let etcd = &document["etcd"];
        for (index, endpoint) in etcd["endpoints"].as_array().into_iter().flatten().enumerate() {
            let text = endpoint.as_str().unwrap_or_default();
            let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
            let authority = text.strip_suffix('/').unwrap_or(text).parse::<http::uri::Authority>();
            if !authority.is_ok_and(|authority| !authority.as_str().contains('@')) {
                let rule = "invalid endpoint: expected host:port, http://host:port or https://host:port";
                let at = self.root.at("etcd.endpoints");
                let item = at.and_then(Node::as_seq).and_then(|items| items.get(index)).or(at);
                let origin = item.map_or(Origin::Unknown, |node| node.origin.clone());
                self.push(Path::of("etcd.endpoints").with(Seg::Index(index)), origin, rule.into());
            }
        }
        match (etcd["user"].as_str(), etcd["password_env"].as_str()) {
            (Some(_), None) => self.add("etcd.user", "requires etcd.password_env".into()),
            (None, Some(_)) => self.add("etcd.password_env", "requires etcd.user".into()),
            (Some(_), Some(name)) => self.variable("etcd.password_env", name, env),
            (None, None) => {}
        }
    }

    fn store(&mut self, document: &Value, env: Env<'_>) {
        let store = &document["store"];
        if let Some(name) = store["key_env"].as_str() {
            if store["key_file"].is_string() {
                self.add(
                    "store.key_env",
                    "and store.key_file are mutually exclusive: set one of them".into(),
                );
            }
            self.variable("store.key_env", name, env);
        }
    }

    /// The variable of this name must hold something.
    fn variable(&mut self, path: &str, name: &str, env: Env<'_>) {
        if env(name).is_none_or(|value| value.is_empty()) {
            self.add(path, format!("names the environment variable `{name}`, which is unset or empty"));
        }
    }

    fn admin(&mut self, document: &Value) {
        let admin = &document["admin"];
        if admin["enabled"] == false {
            // A listener that is not bound needs neither address nor keys.
            let (addr, keys) = (Path::of("admin.addr"), Path::of("admin.admin_keys"));
            self.problems.retain(|problem| {
                let form = matches!(problem.fault, Fault::Rule(_) | Fault::Short(_));
                !(form && (problem.path == addr || problem.path.0.starts_with(&keys.0)))
            });
        } else if admin["admin_keys"].as_array().is_some_and(Vec::is_empty)
            && admin["keys"].as_array().is_some_and(Vec::is_empty)
            && (document["resources_file"].is_string() || document["etcd"].is_object())
        {
            let at = if self.root.at("admin.admin_keys").is_some() { "admin.admin_keys" } else { "admin" };
            let origin = self.root.at(at).map_or(Origin::Unknown, |node| node.origin.clone());
            let path = Path::of("admin.admin_keys");
            self.push(path, origin, "must contain at least one key".into());
        }
    }

    fn admin_names(&mut self, document: &Value) {
        let unnamed = document["admin"]["admin_keys"].as_array().map_or(0, Vec::len);
        let unnamed: Vec<String> = (1..=unnamed).map(|at| format!("admin-{at}")).collect();
        // Names that the audit log knows already.
        let mut seen: Vec<&str> = vec!["bootstrap", "generated"];
        seen.extend(unnamed.iter().map(String::as_str));
        for key in document["admin"]["keys"].as_array().into_iter().flatten() {
            let Some(name) = key["name"].as_str() else { continue };
            if seen.contains(&name) {
                self.add(
                    "admin.keys",
                    format!("give the name {name:?}, which another key has or which is reserved"),
                );
            }
            seen.push(name);
        }
        let secrets = |list: &Value, field: Option<&str>| -> Vec<String> {
            let items = list.as_array().into_iter().flatten();
            let secret = items.map(|item| field.map_or(item, |field| &item[field]));
            secret.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let admin = &document["admin"];
        let mut all = secrets(&admin["admin_keys"], None);
        all.extend(secrets(&admin["keys"], Some("key")));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        if all.len() < count && admin["keys"].as_array().is_some_and(|keys| !keys.is_empty()) {
            self.add("admin.keys", "give a key twice: nobody could tell who used it".into());
        }
    }

    fn rewrites(&mut self, document: &Value) {
        let rules = document["proxy"]["url_rewrites"].as_array();
        let nodes = self.root.at("proxy.url_rewrites");
        for (index, rule) in rules.into_iter().flatten().enumerate() {
            let node = nodes.and_then(|nodes| match nodes.as_seq() {
                Some(items) => items.get(index),
                None => Some(nodes),
            });
            let origin = node.map_or(Origin::Unknown, |node| node.origin.clone());
            let label = rule["name"].as_str().map_or_else(String::new, |n| format!("({n:?}) "));
            let base = Path::of("proxy.url_rewrites").with(Seg::Index(index));
            for (field, why) in rewrite_faults(rule) {
                let path = base.with(Seg::Key(field.into()));
                self.push(path, origin.clone(), format!("{label}{why}"));
            }
        }
    }

    /// A client certificate needs its key, and the other way round.
    fn pairs(&mut self, document: &Value) {
        let tls = &document["upstream"]["tls"];
        let (cert, key) = ("client_cert_file", "client_key_file");
        for (one, other) in [(cert, key), (key, cert)] {
            if !tls[one].is_null() && tls[other].is_null() {
                let rule = format!("requires upstream.tls.{other}");
                self.add(&format!("upstream.tls.{one}"), rule);
            }
        }
    }

    fn drain(&mut self, document: &Value) {
        let shutdown = &document["shutdown"];
        let (min, max) = (&shutdown["min_drain_secs"], &shutdown["max_drain_secs"]);
        if let (Some(min), Some(max)) = (min.as_u64(), max.as_u64())
            && max < min
        {
            let rule = "must not be less than shutdown.min_drain_secs";
            self.add("shutdown.max_drain_secs", rule.into());
        }
    }
}

fn rewrite_faults(rule: &Value) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let (Some(pattern), Some(template)) = (rule["match"].as_str(), rule["rewrite"].as_str()) else {
        return faults;
    };
    let regex = match Format::Regex.check(pattern) {
        Ok(()) => compile(pattern, false).ok(),
        Err(why) => {
            faults.push(("match", why));
            None
        }
    };
    if regex.as_ref().is_some_and(|regex| regex.is_match("")) {
        faults.push(("match", "must not match the empty string".into()));
    }
    if template.contains(|c: char| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control()) {
        let why = "must not contain `?`, `#`, white space or control characters";
        faults.push(("rewrite", why.into()));
    }
    match references(template) {
        Err(why) => faults.push(("rewrite", why.into())),
        Ok(names) => {
            let Some(regex) = regex else { return faults };
            let known = |name: &str| match name.parse::<usize>() {
                Ok(index) => index < regex.captures_len(),
                Err(_) => regex.capture_names().flatten().any(|known| known == name),
            };
            for name in names.iter().filter(|name| !known(name)) {
                let why = format!("refers to the undefined group `{name}`");
                faults.push(("rewrite", why));
            }
        }
    }
    faults
}

/// The groups that a rewrite template refers to.
fn references(template: &str) -> Result<Vec<&str>, &'static str> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((_, tail)) = rest.split_once('$') {
        if let Some(tail) = tail.strip_prefix('$') {
            rest = tail;
        } else if let Some(tail) = tail.strip_prefix('{') {
            let (name, tail) = tail.split_once('}').ok_or("has an unterminated `${`")?;
            names.push(name);
            rest = tail;
        } else {
            let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(tail.len());
            if end > 0 {
                names.push(&tail[..end]);
            }
            rest = &tail[end..];
        }
    }
    Ok(names)
}

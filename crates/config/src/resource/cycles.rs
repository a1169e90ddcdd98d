//! Models that stand for each other: a request to one of them would never end.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::Value;

use super::model::KIND;
use super::refs::{at, read};

/// What virtual models lead to, by name.
#[derive(Default)]
pub(crate) struct Links(BTreeMap<String, Vec<String>>);

impl Links {
    /// Notes a model. Of several with one name the first counts.
    pub(crate) fn add(&mut self, model: &Value) {
        let mut targets = Vec::new();
        refs(model, &mut |_, target| targets.push(target.to_owned()));
        if let (Some(name), false) = (model["display_name"].as_str(), targets.is_empty()) {
            self.0.entry(name.to_owned()).or_insert(targets);
        }
    }

    /// Why a model must not be as it is: it leads back to itself.
    pub(crate) fn complaint(&self, model: &Value) -> Option<String> {
        let way = self.back_to(model["display_name"].as_str()?)?;
        let mut field = None;
        refs(model, &mut |path, target| {
            if field.is_none() && target == way[1] {
                field = Some(path());
            }
        });
        Some(format!("`{}` leads back to this model: {}", field?, way.join(" \u{2192} ")))
    }

    /// The shortest way from a model back to it: at least two names.
    fn back_to<'a>(&'a self, start: &'a str) -> Option<Vec<&'a str>> {
        let mut before: HashMap<&str, &str> = HashMap::new();
        let mut open = VecDeque::from([start]);
        while let Some(name) = open.pop_front() {
            for target in self.0.get(name).into_iter().flatten() {
                if target == start {
                    let mut way = vec![start, name];
                    // The start itself is never noted: its search ends here.
                    while let Some(earlier) = before.get(way[way.len() - 1]) {
                        way.push(earlier);
                    }
                    way.reverse();
                    return Some(way);
                }
                if !before.contains_key(target.as_str()) {
                    before.insert(target, name);
                    open.push_back(target);
                }
            }
        }
        None
    }

    /// Ways that end where they begin, at least one wherever there is any; not
    /// more than `most`.
    pub(crate) fn cycles(&self, most: usize) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        // Whether a name is on the way, or done.
        let mut on_way: HashMap<&str, bool> = HashMap::new();
        for start in self.0.keys() {
            if on_way.contains_key(start.as_str()) {
                continue;
            }
            on_way.insert(start, true);
            let mut way = vec![(start.as_str(), 0)];
            while let Some((name, next)) = way.last_mut() {
                let Some(target) = self.0.get(*name).and_then(|targets| targets.get(*next)) else {
                    on_way.insert(*name, false);
                    way.pop();
                    continue;
                };
                *next += 1;
                match on_way.get(target.as_str()) {
                    None => {
                        on_way.insert(target, true);
                        way.push((target, 0));
                    }
                    Some(true) if found.len() < most => {
                        let around = way.iter().map(|(name, _)| *name).skip_while(|name| name != target);
                        found.push(around.chain([target.as_str()]).map(str::to_owned).collect());
                    }
                    Some(_) => {}
                }
            }
        }
        found
    }
}

/// Shows every model that a model names, and where once that is asked for.
fn refs(model: &Value, see: &mut dyn FnMut(&dyn Fn() -> String, &str)) {
    for reference in KIND.refs.iter().filter(|reference| reference.kind == KIND.name) {
        read(model, reference.path, &mut Vec::new(), &mut |places, target| {
            see(&|| at(reference.path, places), target);
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn links(models: &[Value]) -> Links {
        let mut links = Links::default();
        models.iter().for_each(|model| links.add(model));
        links
    }

    fn group(name: &str, targets: &[&str]) -> Value {
        let targets: Vec<_> = targets.iter().map(|target| json!({"model": target})).collect();
        json!({"display_name": name, "routing": {"targets": targets}})
    }

    #[test]
    fn the_way_back_is_told() {
        let semantic = json!({"display_name": "s", "semantic": {
            "embedding_model": "d", "default": "d",
            "routes": [{"target": "d"}, {"target": "g"}],
            "on_embedding_failure": {"target": "s"},
        }});
        let judge = json!({"display_name": "e", "ensemble": {
            "panel": [{"model": "d"}], "judge": {"model": "e"},
        }});
        let models =
            [semantic, judge, group("g", &["d", "h"]), group("h", &["s"]), group("out", &["g", "d"])];
        let all = links(&models);
        let told: Vec<_> = models.iter().map(|model| all.complaint(model)).collect();
        let back = |field: &str, way: &str| Some(format!("`{field}` leads back to this model: {way}"));
        let expected = [
            back("semantic.on_embedding_failure.target", "s → s"),
            back("ensemble.judge.model", "e → e"),
            back("routing.targets[1].model", "g → h → s → g"),
            back("routing.targets[0].model", "h → s → g → h"),
            None,
        ];
        assert_eq!(told, expected);
        assert_eq!(all.cycles(9), [vec!["e", "e"], vec!["g", "h", "s", "g"], vec!["s", "s"]]);
        assert_eq!(all.cycles(1).len(), 1);
    }

    #[test]
    fn ways_that_meet_are_no_cycle() {
        let models = [group("a", &["b", "c"]), group("b", &["d"]), group("c", &["d"]), group("d", &["x"])];
        let all = links(&models);
        assert!(models.iter().all(|model| all.complaint(model).is_none()));
        assert!(all.cycles(9).is_empty());
    }
}

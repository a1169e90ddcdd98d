//! A strict reader of the text exposition: it panics on anything that a
//! scraper could trip over.

use std::collections::HashSet;

pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
    line: String,
}

pub(crate) struct Scrape {
    pub(crate) text: String,
    pub(crate) all: Vec<Sample>,
    /// Family and type in order.
    pub(crate) types: Vec<(String, String)>,
}

impl Scrape {
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            let has = |(k, v): &(&str, &str)| sample.labels.iter().any(|(a, b)| a == k && b == v);
            sample.name == name && labels.iter().all(has)
        };
        self.all.iter().filter(carries).map(|s| s.value).sum()
    }

    /// The only line of a series.
    pub(crate) fn line(&self, name: &str) -> &str {
        let lines: Vec<_> = self.all.iter().filter(|s| s.name == name).collect();
        assert_eq!(lines.len(), 1, "{name}");
        &lines[0].line
    }

    pub(crate) fn families(&self) -> Vec<&str> {
        self.types.iter().map(|(name, _)| name.as_str()).collect()
    }
}

pub(crate) fn parse(text: &str) -> Scrape {
    assert!(text.is_empty() || text.ends_with('\n'));
    let mut scrape = Scrape { text: text.to_owned(), all: Vec::new(), types: Vec::new() };
    let mut series = HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "summary", "histogram"].contains(&kind), "{line}");
            assert!(!scrape.families().contains(&name), "two families {name}");
            scrape.types.push((name.into(), kind.into()));
            continue;
        }
        let sample = sample(line);
        let (family, kind) = scrape.types.last().expect("a sample before its family");
        let suffix = sample.name.strip_prefix(family.as_str());
        let allowed: &[&str] = match kind.as_str() {
            "summary" => &["", "_sum", "_count"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffix.is_some_and(|s| allowed.contains(&s)), "{line}");
        assert!(series.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
        scrape.all.push(sample);
    }
    for (family, _) in &scrape.types {
        let begins = |sample: &Sample| sample.name.starts_with(family.as_str());
        assert!(scrape.all.iter().any(begins), "empty family {family}");
    }
    scrape
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (key, after) = rest.split_once("=\"").expect("a label");
            assert!(is_name(key) && !labels.iter().any(|(k, _)| k == key), "{line}");
            let (value, after) = quoted(after);
            labels.push((key.to_owned(), value));
            match after.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("one space");
    assert!(!value.contains(' ') && !value.contains(['e', 'E']), "{line}");
    Sample { name: name.into(), labels, value: value.parse().expect(line), line: line.into() }
}

/// Reads up to the closing quote; returns the value and what follows.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().expect("an escape").1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                c => panic!("escape {c:?}"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

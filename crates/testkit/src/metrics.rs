//! A scrape of the text exposition, parsed far enough to ask questions of it.

/// One sample line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Series name.
    pub name: String,
    /// Labels in the order of the exposition.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// The value of one label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Label names in order.
    pub fn label_names(&self) -> Vec<&str> {
        self.labels.iter().map(|(key, _)| key.as_str()).collect()
    }
}

/// A whole scrape.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// The text as it came.
    pub text: String,
    /// All samples in order.
    pub all: Vec<Sample>,
}

impl Samples {
    /// Parses an exposition; panics on a line that is neither a comment nor a sample.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let all = lines
            .map(|line| parse_sample(line).unwrap_or_else(|| panic!("not a sample line: {line:?}")))
            .collect();
        Self { text: text.to_owned(), all }
    }

    /// All samples of a series that carry at least these labels.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let carries =
            |sample: &&Sample| sample.name == name && labels.iter().all(|(k, v)| sample.label(k) == Some(v));
        self.all.iter().filter(carries).collect()
    }

    /// Sum of [`Samples::find`]; 0 when nothing matches (series are made on first use).
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).iter().map(|s| s.value).sum()
    }

    /// The type declared for a family.
    pub fn kind(&self, family: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let rest = line.strip_prefix("# TYPE ")?;
            let (name, kind) = rest.split_once(' ')?;
            (name == family).then_some(kind)
        })
    }

    /// Whether any name or label value contains `needle`.
    pub fn mentions(&self, needle: &str) -> bool {
        self.text.contains(needle)
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (head, value) = match line.rfind('}') {
        Some(end) => (&line[..=end], line[end + 1..].trim()),
        None => line.split_once(' ').map(|(h, v)| (h, v.trim()))?,
    };
    let (name, labels) = match head.split_once('{') {
        Some((name, rest)) => (name, parse_labels(rest.strip_suffix('}')?)?),
        None => (head, Vec::new()),
    };
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

fn parse_labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next()? {
                    (_, 'n') => value.push('\n'),
                    (_, other) => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((key.to_owned(), value));
        text = rest[end..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_with_and_without_labels() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"}\\n\"} 3\na{x=\"2\"} 4\nb 0.5\n";
        let samples = Samples::parse(text);
        assert_eq!(samples.all.len(), 3);
        assert_eq!(samples.kind("a"), Some("counter"));
        assert_eq!(samples.sum("a", &[]), 7.0);
        assert_eq!(samples.sum("a", &[("x", "2")]), 4.0);
        assert_eq!(samples.find("a", &[("x", "1")])[0].label("y"), Some("q\"}\n"));
        assert_eq!(samples.sum("b", &[]), 0.5);
        assert_eq!(samples.sum("missing", &[]), 0.0);
    }
}

//! Writes the Prometheus text format.

use std::fmt::Write;

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Quantiles, sum and count.
    Summary,
    /// Cumulative buckets, sum and count.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }
}

/// A sample value: integers stay integers, floats take their shortest form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(u64),
    /// A float.
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// An exposition under construction. Begin a family, then add its samples.
pub struct Exposition<'a> {
    out: &'a mut String,
}

impl<'a> Exposition<'a> {
    /// Appends to a text, which may hold other families already.
    pub fn append_to(out: &'a mut String) -> Self {
        Self { out }
    }

    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: Kind) {
        self.line(format_args!("# TYPE {name} {}", kind.as_str()));
    }

    /// Adds a sample with labels in this order.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Into<Value>) {
        self.raw_sample(name, &labels_text(labels), value.into());
    }

    /// Adds a sample whose labels are already in exposition form.
    pub(super) fn raw_sample(&mut self, name: &str, labels: &str, value: Value) {
        self.out.push_str(name);
        if !labels.is_empty() {
            self.out.push('{');
            self.out.push_str(labels);
            self.out.push('}');
        }
        match value {
            Value::Int(value) => self.line(format_args!(" {value}")),
            Value::Float(value) => self.line(format_args!(" {}", float(value))),
        }
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{text}");
    }
}

/// `a="1",b="2"`, escaped.
pub(super) fn labels_text(labels: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(labels.len() * 32);
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

/// The shortest text that reads back as the same number.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.into()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_exact() {
        let mut text = String::from("before 1\n");
        let mut out = Exposition::append_to(&mut text);
        out.family("a_total", Kind::Counter);
        out.sample("a_total", &[], 3);
        out.family("b", Kind::Gauge);
        out.sample("b", &[("z", "q\"\\\nä"), ("a", "")], 0.5);
        assert_eq!(
            text,
            "before 1\n# TYPE a_total counter\na_total 3\n# TYPE b gauge\nb{z=\"q\\\"\\\\\\nä\",a=\"\"} 0.5\n"
        );
    }

    #[test]
    fn floats_are_short() {
        for (value, text) in [
            (1.0, "1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-7, "0.0000001"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(value), text);
        }
    }
}

//! `${VAR}` in the text values of a resources file.

use super::Env;
use crate::schema::{Path, Seg};
use crate::tree::{Data, Node};

/// Fills in every text of a node. What fails stays as it is and is returned
/// with its path and reason.
pub(super) fn fill(node: &mut Node, env: Env<'_>) -> Vec<(Path, String)> {
    let mut failed = Vec::new();
    walk(node, env, &Path::default(), &mut failed);
    failed
}

fn walk(node: &mut Node, env: Env<'_>, path: &Path, failed: &mut Vec<(Path, String)>) {
    match &mut node.data {
        Data::String(text) => match text_of(text, env) {
            Ok(filled) => *text = filled,
            Err(why) => failed.push((path.clone(), format!("field `{}`: {why}", path.dotted()))),
        },
        Data::Seq(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, env, &path.with(Seg::Index(index)), failed);
            }
        }
        Data::Map(members) => {
            for (key, value) in members {
                walk(value, env, &path.with(Seg::Key(key.clone())), failed);
            }
        }
        _ => {}
    }
}

/// `${VAR}` becomes the value of the variable, `$$` a `$`; any other `$` stays.
/// A value that was filled in is not looked at again.
fn text_of(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((literal, tail)) = rest.split_once('$') {
        out.push_str(literal);
        if let Some(tail) = tail.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = tail.strip_prefix('{') {
            let (name, tail) = tail.split_once('}').ok_or("unterminated `${`")?;
            if name.is_empty() {
                return Err("empty variable name in `${}`".into());
            }
            let value = env(name).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| {
                let name = name.escape_debug();
                format!("environment variable `{name}` is unset or empty")
            })?;
            out.push_str(&value);
            rest = tail;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("h".into()),
            "NESTED" => Some("${HOST}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn fills_in() {
        let cases = [
            ("https://${HOST}/v1", "https://h/v1"),
            ("${NESTED}", "${HOST}"),
            ("$${X}", "${X}"),
            ("$$${HOST}", "$h"),
            ("$HOST $", "$HOST $"),
            ("plain", "plain"),
        ];
        for (text, expected) in cases {
            assert_eq!(text_of(text, &env).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn complains_without_the_text() {
        let cases = [
            ("sk-1${GONE}", "environment variable `GONE` is unset or empty"),
            ("${EMPTY}", "environment variable `EMPTY` is unset or empty"),
            ("sk-1${}", "empty variable name in `${}`"),
            ("sk-1${HOST", "unterminated `${`"),
        ];
        for (text, expected) in cases {
            assert_eq!(text_of(text, &env).unwrap_err(), expected, "{text}");
        }
    }
}

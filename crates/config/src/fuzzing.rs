//! What must hold for the text of a stored document, for the fuzz targets. No
//! part of the interface.

use crate::resource::{KINDS, ResourceKind, ResourceSet};
use crate::schema::{Checked, Mode};
use crate::tree::{Node, parse_json};

/// Takes a text through every check of a document; panics when one of them
/// contradicts another. The kind is picked by the number.
pub fn document(pick: u8, text: &str) {
    let kind = KINDS[usize::from(pick) % KINDS.len()];
    let Ok(node) = parse_json(text) else {
        return;
    };
    let strict = kind.check(&node, Mode::Strict);
    let lenient = kind.check(&node, Mode::Lenient);
    // Every wording must be sayable.
    for problem in strict.problems.iter().chain(&lenient.problems) {
        assert!(!problem.resource_text().is_empty());
    }
    if strict.problems.is_empty() {
        assert!(lenient.problems.is_empty(), "{kind:?}: written but not read: {:?}", lenient.problems);
        assert!(lenient.ignored.is_empty(), "{kind:?}: written but not heeded: {:?}", lenient.ignored);
        assert_eq!(strict.document, lenient.document, "{kind:?}: written and read differently");
        settled(kind, &strict, Mode::Strict);
    }
    if lenient.problems.is_empty() {
        settled(kind, &lenient, Mode::Lenient);
    }
}

/// A document in order is its own canonical form, and can be put in force.
fn settled(kind: &'static ResourceKind, checked: &Checked, mode: Mode) {
    let again = kind.check(&Node::of_json(checked.document.clone()), mode);
    assert!(again.problems.is_empty(), "{kind:?} {mode:?}: refused the second time: {:?}", again.problems);
    assert_eq!(again.document, checked.document, "{kind:?} {mode:?}: changes every time");
    let mut set = ResourceSet::default();
    let put = set.put(kind, "id", 1, checked.document.clone());
    assert!(put.is_ok() || mode == Mode::Lenient, "{kind:?}: in order but not usable");
    assert_eq!(set.views(kind).len(), usize::from(put.is_ok()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::document;
    use crate::resource::KINDS;
    use crate::testing::{arbitrary, json};

    fn pick() -> impl Strategy<Value = (u8, Value)> {
        let kinds = KINDS.iter().zip(0u8..);
        proptest::strategy::Union::new(
            kinds.map(|(kind, pick)| arbitrary(kind).prop_map(move |document| (pick, document)).boxed()),
        )
    }

    /// Every member of every object, one after the other.
    fn member_at(value: &mut Value, left: &mut usize, put: &mut dyn FnMut(&mut Value)) {
        let inner: Vec<&mut Value> = match value {
            Value::Object(members) => members.values_mut().collect(),
            Value::Array(items) => items.iter_mut().collect(),
            _ => return,
        };
        for value in inner {
            if *left == 0 {
                put(value);
            }
            *left = left.wrapping_sub(1);
            member_at(value, left, put);
        }
    }

    proptest! {
        #[test]
        fn checks_agree((pick, value) in pick(), at in 0usize..40, odd in json(), name in "[a-z_]{1,8}") {
            document(pick, &value.to_string());
            let mut changed = value.clone();
            let mut left = at;
            member_at(&mut changed, &mut left, &mut |place| *place = odd.clone());
            document(pick, &changed.to_string());
            let mut grown = value;
            grown[name] = odd;
            document(pick, &grown.to_string());
        }
    }
}

//! The resources in force.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, IgnoredAny};
use serde_json::Value;

use super::{ApiKey, KINDS, Model, ProviderKey, Resource, ResourceKind};

/// One resource as it is in force.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    /// The id: stable over reloads, restarts and machines.
    pub id: Arc<str>,
    /// The load generation of a file, or the revision of a store.
    pub revision: u64,
    /// The typed resource.
    pub value: T,
    /// The document as operators may see it: canonical field names, defaults
    /// written out, secrets replaced by `***`.
    pub document: Arc<Value>,
}

/// The resources of one kind, ordered by id. Cloning shares them.
#[derive(Debug)]
pub struct Rows<T>(Arc<Vec<Arc<Stored<T>>>>);

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Deref for Rows<T> {
    type Target = [Arc<Stored<T>>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Some of the resources of a kind.
type Shared<'r, T> = Vec<&'r Arc<Stored<T>>>;

impl<T> Rows<T> {
    /// The resource of an id.
    pub fn get(&self, id: &str) -> Option<&Arc<Stored<T>>> {
        self.find(id).ok().map(|at| &self.0[at])
    }

    /// Whether nothing has changed between the two.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What is not in the other any more, and what is new in it.
    pub fn difference<'r>(&'r self, other: &'r Self) -> (Shared<'r, T>, Shared<'r, T>) {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        let (mut a, mut b) = (self.iter().peekable(), other.iter().peekable());
        loop {
            match (a.peek(), b.peek()) {
                (None, None) => return (gone, new),
                (Some(old), Some(now)) if Arc::ptr_eq(old, now) => {
                    a.next();
                    b.next();
                }
                (Some(old), Some(now)) if old.id == now.id => {
                    gone.extend(a.next());
                    new.extend(b.next());
                }
                (Some(old), now) if now.is_none_or(|now| old.id < now.id) => gone.extend(a.next()),
                _ => new.extend(b.next()),
            }
        }
    }

    fn find(&self, id: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|row| (*row.id).cmp(id))
    }
}

/// A resource as operators see it.
#[derive(Clone, Debug)]
pub struct View {
    /// The id.
    pub id: Arc<str>,
    /// The load generation of a file, or the revision of a store.
    pub revision: u64,
    /// The masked document.
    pub document: Arc<Value>,
}

/// The rows of any kind.
pub(crate) trait AnyRows: Send + Sync {
    fn len(&self) -> usize;
    fn put(
        &mut self,
        kind: &ResourceKind,
        id: &str,
        revision: u64,
        document: Value,
    ) -> serde_json::Result<()>;
    fn remove(&mut self, id: &str);
    fn revise(&mut self, revision: u64);
    fn view(&self, id: &str) -> Option<View>;
    fn views(&self) -> Vec<View>;
    fn each(&self, see: &mut dyn FnMut(&str, &Value));
    fn share(&self) -> Box<dyn AnyRows>;
    fn as_any(&self) -> &dyn Any;
}

impl<T: serde::de::DeserializeOwned + Send + Sync + Clone + 'static> AnyRows for Rows<T> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn put(
        &mut self,
        kind: &ResourceKind,
        id: &str,
        revision: u64,
        document: Value,
    ) -> serde_json::Result<()> {
        let masked = Arc::new(kind.masked(&document));
        let value = serde_json::from_value(document)?;
        let stored = Arc::new(Stored { id: id.into(), revision, value, document: masked });
        let at = self.find(id);
        let rows = Arc::make_mut(&mut self.0);
        match at {
            Ok(at) => rows[at] = stored,
            Err(at) => rows.insert(at, stored),
        }
        Ok(())
    }

    fn remove(&mut self, id: &str) {
        if let Ok(at) = self.find(id) {
            Arc::make_mut(&mut self.0).remove(at);
        }
    }

    fn revise(&mut self, revision: u64) {
        for row in Arc::make_mut(&mut self.0) {
            Arc::make_mut(row).revision = revision;
        }
    }

    fn view(&self, id: &str) -> Option<View> {
        self.get(id).map(|row| view(row))
    }

    fn views(&self) -> Vec<View> {
        self.iter().map(|row| view(row)).collect()
    }

    fn each(&self, see: &mut dyn FnMut(&str, &Value)) {
        for row in self.iter() {
            see(&row.id, &row.document);
        }
    }

    fn share(&self) -> Box<dyn AnyRows> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn view<T>(row: &Stored<T>) -> View {
    View { id: Arc::clone(&row.id), revision: row.revision, document: Arc::clone(&row.document) }
}

/// The typed form of a kind that nothing acts on yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unbuilt;

impl<'de> Deserialize<'de> for Unbuilt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

pub(crate) fn rows_of<T>() -> Box<dyn AnyRows>
where
    T: Resource + Clone,
{
    Box::new(Rows::<T>::default())
}

/// Everything that is in force at one moment. Cloning shares the resources.
pub struct ResourceSet {
    /// The load generation of a file, or the revision of a store.
    pub revision: u64,
    /// In the order of [`KINDS`].
    rows: Vec<Box<dyn AnyRows>>,
}

impl Default for ResourceSet {
    fn default() -> Self {
        Self { revision: 0, rows: KINDS.iter().map(|kind| (kind.new_rows)()).collect() }
    }
}

impl Clone for ResourceSet {
    fn clone(&self) -> Self {
        Self { revision: self.revision, rows: self.rows.iter().map(|rows| rows.share()).collect() }
    }
}

impl fmt::Debug for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceSet").field("revision", &self.revision).field("rows", &self.counts()).finish()
    }
}

impl ResourceSet {
    /// Upstream credentials and addresses.
    pub fn provider_keys(&self) -> &Rows<ProviderKey> {
        self.typed()
    }

    /// Models that callers may name.
    pub fn models(&self) -> &Rows<Model> {
        self.typed()
    }

    /// Caller keys.
    pub fn api_keys(&self) -> &Rows<ApiKey> {
        self.typed()
    }

    fn typed<T: Resource>(&self) -> &Rows<T> {
        // Each kind makes the rows of its own type.
        self.of(T::KIND).as_any().downcast_ref().expect("the rows of the kind")
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.rows.iter().map(|rows| rows.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are of each kind; kinds without any are left out.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let counts = KINDS.iter().zip(&self.rows).map(|(kind, rows)| (kind.name, rows.len()));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// The resources of a kind, ordered by id.
    pub fn views(&self, kind: &ResourceKind) -> Vec<View> {
        self.of(kind).views()
    }

    /// Shows every resource of a kind: id and masked document.
    pub(crate) fn each(&self, kind: &ResourceKind, see: &mut dyn FnMut(&str, &Value)) {
        self.of(kind).each(see);
    }

    /// A resource of a kind.
    pub fn view(&self, kind: &ResourceKind, id: &str) -> Option<View> {
        self.of(kind).view(id)
    }

    fn of(&self, kind: &ResourceKind) -> &dyn AnyRows {
        &*self.rows[position(kind)]
    }

    /// Adds or replaces a resource.
    pub(crate) fn put(
        &mut self,
        kind: &ResourceKind,
        id: &str,
        revision: u64,
        document: Value,
    ) -> serde_json::Result<()> {
        self.rows[position(kind)].put(kind, id, revision, document)
    }

    pub(crate) fn remove(&mut self, kind: &ResourceKind, id: &str) {
        self.rows[position(kind)].remove(id);
    }

    /// Gives every resource the generation it was loaded in.
    pub(crate) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
        for rows in &mut self.rows {
            rows.revise(revision);
        }
    }
}

/// Where a kind stands among [`KINDS`], of which it is one.
fn position(kind: &ResourceKind) -> usize {
    KINDS.iter().position(|known| known.name == kind.name).expect("a kind of the table")
}

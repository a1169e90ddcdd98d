//! The first start of an embedded store: what lets a gateway answer without a
//! single file. Later starts only pick up what is new in the environment.
//!
//! What was done is noted beside the rows, and each note says on which side of
//! a commit a start broke off: the next one completes it. Until the secrets
//! were printed ([`Welcome::show`]) a start replaces them, since nobody has them.

mod offer;
mod probe;
#[cfg(test)]
mod tests;
mod turn;
mod vendors;
mod welcome;

use std::{collections::HashSet, net::SocketAddr, path::Path, time::Duration};

use aisix_config::{
    ResourceKind,
    edit::{Actor, Done, EditError, Editor, Operation, Refusal, Request},
    kind_of,
};
use aisix_core::{Secret, rows::RawRow};
use aisix_store::embedded::EmbeddedStore;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use offer::Offer;
use probe::Local;
use turn::Turn;
pub(crate) use welcome::Welcome;

/// Whether the first start is over, and how.
const DONE: &str = "bootstrap.done";
const MADE: &str = "made";
/// Somebody else filled the store: what is in it stays their business.
const FILLED: &str = "filled";
/// The id of the first caller key.
const FIRST_KEY: &str = "bootstrap.key";
/// SHA-256 of the admin key, in hexadecimal digits.
const ADMIN_KEY: &str = "admin_key.generated";
/// Whether the admin key was ever shown.
const ADMIN_KEY_SHOWN: &str = "admin_key.shown";
/// The note of a source whose names were taken by somebody else.
const LEFT: &str = "left";

/// How often changes are made out anew when others change the same names.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// What another gateway with the same folder may take for its first start.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a start finds around it.
pub(crate) struct Surroundings {
    /// The environment.
    pub(crate) env: Vec<(String, String)>,
    /// Where callers reach the gateway.
    pub(crate) proxy_addr: SocketAddr,
    /// Where the admin API is, if there is one.
    pub(crate) admin_addr: Option<SocketAddr>,
    /// Whether callers need TLS.
    pub(crate) tls: bool,
    /// How long local servers may take to answer.
    pub(crate) probe: Duration,
    /// Whether nobody configured an admin key.
    pub(crate) admin_key_needed: bool,
}

impl Surroundings {
    /// A variable that is set and not blank, without outer blanks.
    fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.env.iter().find(|(known, _)| known == name)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }
}

/// Prepares an embedded store, which the editor has loaded. What it gives is
/// to be printed with [`Welcome::show`] once the gateway answers.
pub(crate) async fn first_start(
    editor: &Editor,
    store: &EmbeddedStore,
    surroundings: Surroundings,
) -> Result<Option<Welcome>> {
    start(editor, store, &surroundings, &Local::USUAL).await
}

/// SHA-256 of the admin key that a first start made, if one did.
pub(crate) async fn generated_admin_key(store: &EmbeddedStore) -> Result<Option<[u8; 32]>> {
    let Some(text) = store.meta_get(ADMIN_KEY).await? else { return Ok(None) };
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        let pair = text.get(2 * at..2 * at + 2).filter(|_| text.len() == 64);
        let read = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *byte = read.with_context(|| format!("the value `{ADMIN_KEY}` of the store is no SHA-256"))?;
    }
    Ok(Some(digest))
}

async fn start(
    editor: &Editor,
    store: &EmbeddedStore,
    around: &Surroundings,
    local: &Local<'_>,
) -> Result<Option<Welcome>> {
    let folder = store.path().parent().unwrap_or(Path::new("."));
    let Some(turn) = Turn::take(folder, PATIENCE).await else {
        tracing::warn!(
            "another gateway is still at the first start of this store; this one adds nothing to it"
        );
        return Ok(None);
    };
    let done = store.meta_get(DONE).await?;
    let admin_key = match around.admin_key_needed {
        true => make_admin_key(store, done.is_none()).await?,
        false => None,
    };
    let start = Start { editor, store, around };
    let mut welcome = Welcome::new(around, store.path(), admin_key, turn);
    match done.as_deref() {
        None => start.first(local, &mut welcome).await?,
        Some(FILLED) => {}
        // It serves with what it has, whatever this comes to.
        Some(_) => {
            if let Err(error) = start.later(local).await {
                tracing::warn!("the environment was not looked through for credentials: {error:#}");
            }
        }
    }
    if welcome.is_empty() {
        welcome.shown(store).await?;
        return Ok(None);
    }
    Ok(Some(welcome))
}

/// A new admin key, unless somebody has seen the one there is.
async fn make_admin_key(store: &EmbeddedStore, first: bool) -> Result<Option<Secret<String>>> {
    if !first && store.meta_get(ADMIN_KEY_SHOWN).await?.is_some() {
        return Ok(None);
    }
    let key = format!("ak-{}", Uuid::new_v4().simple());
    store.meta_set(ADMIN_KEY, &sha256(&key)).await?;
    Ok(Some(Secret::new(key)))
}

/// What came of the first changes.
enum First {
    Made(Secret<String>),
    Filled,
}

struct Start<'s> {
    editor: &'s Editor,
    store: &'s EmbeddedStore,
    around: &'s Surroundings,
}

/// Changes to be made together, and what is noted once they are.
#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    notes: Vec<(String, String)>,
    /// What the log tells then.
    told: Vec<String>,
}

impl Start<'_> {
    async fn first(&self, local: &Local<'_>, welcome: &mut Welcome) -> Result<()> {
        let mut offers = self.variables();
        offers.extend(probe::look(self.around, local, [true, true]).await);
        match self.make_first(&offers).await? {
            First::Filled => welcome.outcome = Some(FILLED),
            First::Made(key) => {
                welcome.outcome = Some(MADE);
                welcome.caller_key = Some(key);
                offers.push(Offer::echo());
                let models = names(&self.store.current().await?.0);
                offers.retain(|offer| models.contains(&offer.model));
                welcome.tell(offers);
            }
        }
        Ok(())
    }

    async fn later(&self, local: &Local<'_>) -> Result<()> {
        let mut offers = self.variables();
        let wanted = [self.is_open(probe::OLLAMA).await?, self.is_open(probe::LLAMACPP).await?];
        offers.extend(probe::look(self.around, local, wanted).await);
        for _ in 0..ATTEMPTS {
            let (rows, _) = self.store.current().await?;
            let mut batch = Batch::default();
            for offer in &offers {
                self.take(offer, &rows, &mut batch).await?;
            }
            if self.commit(&batch).await?.is_some() {
                return Ok(());
            }
        }
        bail!("others kept changing the same resources")
    }

    /// Makes the first caller key along with what is offered.
    async fn make_first(&self, offers: &[Offer]) -> Result<First> {
        self.store.meta_add(FIRST_KEY, &Uuid::new_v4().to_string()).await?;
        let id = self.store.meta_get(FIRST_KEY).await?.context("the store keeps no values")?;
        for _ in 0..ATTEMPTS {
            let (rows, _) = self.store.current().await?;
            let there = rows.iter().any(|row| row.key == format!("api_keys/{id}"));
            if !there && !rows.is_empty() {
                return Ok(First::Filled);
            }
            let mut batch = Batch::default();
            let operation = match there {
                // An earlier first start got as far as this: nobody has the secret.
                true => Operation::Rotate { id: id.clone(), grace: Duration::ZERO },
                false => Operation::Create {
                    kind: kind("api_keys")?,
                    id: Some(id.clone()),
                    value: json!({"display_name": "first key", "allowed_models": ["*"]}),
                },
            };
            batch.requests.push(operation.into());
            for offer in offers {
                self.take(offer, &rows, &mut batch).await?;
            }
            if !there && batch.requests.len() == 1 {
                batch.requests.extend(Offer::echo().requests(&Uuid::new_v4().to_string())?);
            }
            match self.commit(&batch).await?.as_deref() {
                Some([Done::Written { plaintext: Some(secret), .. }, ..]) => {
                    return Ok(First::Made(Secret::new(secret.clone())));
                }
                Some(_) => bail!("the store made no secret for the first caller key"),
                None => {}
            }
        }
        bail!("the first start cannot be completed: others kept changing the same resources")
    }

    /// Makes the changes and then the notes; `None` when others were faster
    /// and the changes have to be made out anew.
    async fn commit(&self, batch: &Batch) -> Result<Option<Vec<Done>>> {
        let mut done = Vec::new();
        if !batch.requests.is_empty() {
            match self.editor.run(&batch.requests, &actor(), "bootstrap", false).await {
                Ok(outcome) => done = outcome.done,
                Err(EditError { refusal: Refusal::Taken(_) | Refusal::NotFound, .. }) => {
                    tokio::time::sleep(PAUSE).await;
                    return Ok(None);
                }
                Err(EditError { refusal, .. }) => bail!("{refusal}"),
            }
        }
        for (name, value) in &batch.notes {
            self.store.meta_set(name, value).await?;
        }
        batch.told.iter().for_each(|text| tracing::info!("{text}"));
        Ok(Some(done))
    }

    /// What the variables of the environment offer.
    fn variables(&self) -> Vec<Offer> {
        vendors::VENDORS.iter().filter_map(|vendor| vendor.offer(self.around)).collect()
    }

    /// Whether nothing has come of a source so far.
    async fn is_open(&self, name: &str) -> Result<bool> {
        let note = self.store.meta_get(&note_of(name)).await?;
        Ok(note.is_none_or(|note| note != LEFT && !note.contains(' ')))
    }

    /// Takes what is offered into a batch, once: what is deleted later stays
    /// deleted, and what is edited later stays as it is. The note is the id of
    /// the provider key and, once that is in the store, what was written there.
    async fn take(&self, offer: &Offer, rows: &[RawRow], batch: &mut Batch) -> Result<()> {
        let name = note_of(offer.name);
        let note = self.store.meta_get(&name).await?;
        let fresh = note.is_none();
        let note = note.unwrap_or_else(|| Uuid::new_v4().to_string());
        if note == LEFT {
            return Ok(());
        }
        let (id, written) = match note.split_once(' ') {
            Some((id, written)) => (id, Some(written.to_owned())),
            None => (note.as_str(), None),
        };
        let wanted = offer.digest();
        let row = rows.iter().find(|row| row.key == format!("provider_keys/{id}"));
        let Some(stored) = row.map(|row| offer::digest_of(&row.value)) else {
            if written.is_none() && self.fits(offer, id, &name).await? {
                // Before the commit, so that a start that breaks off after it is recognised.
                if fresh && !self.store.meta_add(&name, id).await? {
                    return Ok(());
                }
                batch.requests.extend(offer.requests(id)?);
                batch.notes.push((name, format!("{id} {wanted}")));
                batch.told.push(format!("model `{}` is offered: {}", offer.model, offer.origin));
            }
            return Ok(());
        };
        if stored == wanted {
            if note != format!("{id} {wanted}") {
                batch.notes.push((name, format!("{id} {wanted}")));
            }
        } else if written.is_none_or(|written| written == stored) {
            let (kind, id) = (kind("provider_keys")?, id.to_owned());
            batch.notes.push((name, format!("{id} {wanted}")));
            batch.requests.push(Operation::Patch { kind, id, patch: offer.patch() }.into());
            batch.told.push(format!("provider key `{}` follows a change of {}", offer.name, offer.origin));
        } else {
            tracing::info!(
                "provider key `{}` was edited, so it does not follow {}",
                offer.name,
                offer.origin
            );
        }
        Ok(())
    }

    /// Whether the store would take what is offered.
    async fn fits(&self, offer: &Offer, id: &str, note: &str) -> Result<bool> {
        match self.editor.run(&offer.requests(id)?, &actor(), "bootstrap", true).await {
            Ok(_) => Ok(true),
            Err(EditError { refusal: Refusal::Taken(taken), .. }) => {
                tracing::info!("{} is left alone, since there is `{taken}` already", offer.origin);
                self.store.meta_set(note, LEFT).await?;
                Ok(false)
            }
            Err(EditError { refusal, .. }) => {
                tracing::warn!("{} is ignored: {refusal}", offer.origin);
                Ok(false)
            }
        }
    }
}

fn note_of(source: &str) -> String {
    format!("bootstrap.{source}")
}

fn actor() -> Actor {
    Actor { name: "bootstrap".to_owned(), remote: None }
}

fn kind(name: &str) -> Result<&'static ResourceKind> {
    kind_of(name).with_context(|| format!("there is no kind {name}"))
}

/// What the models are called.
fn names(rows: &[RawRow]) -> HashSet<String> {
    let models = rows.iter().filter(|row| row.key.starts_with("models/"));
    let documents = models.filter_map(|row| serde_json::from_slice::<Value>(&row.value).ok());
    documents.filter_map(|document| document["display_name"].as_str().map(str::to_owned)).collect()
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The image of a store in a file, for a start while the store is out of
//! reach. It holds credentials: only the owner may read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aisix_core::rows::{Image, Pinned, RawRow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const VERSION: u64 = 2;
/// The checksum is the last member of the file, so that it can cover every
/// byte before it.
const BEFORE_SUM: &str = r#","sha256":""#;
const AFTER_SUM: &str = "\"}\n";
const SUM: usize = 64;

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    prefix: &'a str,
    revision: u64,
    /// Seconds since 1970, for readers of the file.
    saved_at: u64,
    /// The same, of [`Image::confirmed`]; 0 when that is not known.
    confirmed_unix_secs: u64,
    entries: Vec<Entry>,
    stale: Vec<Entry>,
}

/// Both versions. The first had neither a prefix nor a checksum.
#[derive(Deserialize)]
struct Read {
    version: u64,
    #[serde(default)]
    prefix: Option<String>,
    revision: u64,
    #[serde(default)]
    saved_at: Option<u64>,
    #[serde(default)]
    confirmed_unix_secs: Option<u64>,
    entries: Vec<Entry>,
    #[serde(default)]
    stale: Vec<Entry>,
}

impl Read {
    /// Files that do not say it were written when something had changed.
    fn confirmed(&self) -> Result<Option<SystemTime>, String> {
        let said = self.confirmed_unix_secs.or(self.saved_at);
        said.filter(|at| *at != 0).map(time).transpose()
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    value_b64: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    since_unix_secs: Option<u64>,
}

impl Entry {
    fn of(row: &RawRow, since: Option<SystemTime>) -> Self {
        Self {
            key: row.key.clone(),
            value_b64: STANDARD.encode(&row.value),
            revision: row.revision,
            since_unix_secs: since.map(seconds),
        }
    }

    fn row(self) -> Result<RawRow, String> {
        let value = STANDARD.decode(self.value_b64);
        let value = value.map_err(|_| "a value is not base64".to_owned())?;
        Ok(RawRow { key: self.key, revision: self.revision, value: Bytes::from(value) })
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn time(seconds: u64) -> Result<SystemTime, String> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(|| "a time is out of range".into())
}

/// Replaces the file as a whole: after a crash it holds the old or the new
/// image. Blocks on the disk.
pub fn save(path: &Path, prefix: &str, image: &Image) -> io::Result<()> {
    let written = Written {
        version: VERSION,
        prefix,
        revision: image.revision,
        saved_at: seconds(SystemTime::now()),
        confirmed_unix_secs: image.confirmed.map_or(0, seconds),
        entries: image.rows.iter().map(|row| Entry::of(row, None)).collect(),
        stale: image.pinned.iter().map(|pinned| Entry::of(&pinned.row, Some(pinned.since))).collect(),
    };
    let mut text = serde_json::to_string(&written)?;
    // The closing brace comes back with the checksum.
    text.pop();
    let sum = checksum(text.as_bytes());
    text.extend([BEFORE_SUM, &sum, AFTER_SUM]);

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let draft = path.with_extension("tmp");
    let done = write_new(&draft, text.as_bytes()).and_then(|()| fs::rename(&draft, path));
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done?;
    File::open(folder)?.sync_all()
}

/// A file of an earlier, interrupted run may have other permissions: it goes.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What [`save`] wrote; `None` if there is no file. The text says why a file
/// cannot be used, and quotes nothing of it.
///
/// Files of the first version are read too; `None` if such a file is empty,
/// because it does not say of which prefix.
pub fn load(path: &Path, prefix: &str) -> Result<Option<Image>, String> {
    let content = match read_private(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the file cannot be read: {error}")),
    };
    let summed = verify(&content)?;
    let read: Read = serde_json::from_slice(&content).map_err(|error| {
        format!("not the JSON of a cache at line {} column {}", error.line(), error.column())
    })?;
    match (read.version, summed) {
        (VERSION, true) => second(read, prefix).map(Some),
        (VERSION, false) => Err("the checksum is missing or damaged".into()),
        (1, false) => first(read, prefix),
        _ => Err("of a version that is not known".into()),
    }
}

/// A file that others may read comes from a copy or a careless hand: it is
/// closed to them.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & !0o600 != 0 {
        let closed = file.set_permissions(fs::Permissions::from_mode(mode & 0o600));
        let path = path.display();
        match closed {
            Ok(()) => {
                tracing::warn!(%path, "the cache file had the mode {mode:04o}; it holds credentials and is private now")
            }
            Err(error) => {
                tracing::warn!(%path, %error, "the cache file holds credentials and has the mode {mode:04o}")
            }
        }
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// Whether the file ends in a checksum; an error if it is a wrong one.
fn verify(content: &[u8]) -> Result<bool, String> {
    let tail = BEFORE_SUM.len() + SUM + AFTER_SUM.len();
    let Some((body, tail)) = content.split_at_checked(content.len().saturating_sub(tail)) else {
        return Ok(false);
    };
    let sum =
        tail.strip_prefix(BEFORE_SUM.as_bytes()).and_then(|tail| tail.strip_suffix(AFTER_SUM.as_bytes()));
    match sum {
        None => Ok(false),
        Some(sum) if sum == checksum(body).as_bytes() => Ok(true),
        Some(_) => Err("the checksum does not match".into()),
    }
}

fn checksum(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn second(read: Read, prefix: &str) -> Result<Image, String> {
    if read.prefix.as_deref() != Some(prefix) {
        return Err("of another prefix".into());
    }
    let confirmed = read.confirmed()?;
    image(read.revision, read.entries, read.stale, confirmed)
}

/// The keys are whole. Keys of a sibling whose name begins alike may be among
/// them and are left out.
fn first(read: Read, prefix: &str) -> Result<Option<Image>, String> {
    if read.entries.is_empty() {
        return Ok(None);
    }
    let relative = |entries: Vec<Entry>| -> Vec<Entry> {
        let ours = entries.into_iter().filter_map(|entry| {
            let key = entry.key.strip_prefix(prefix)?.to_owned();
            Some(Entry { key, ..entry })
        });
        ours.collect()
    };
    let confirmed = read.confirmed()?;
    let (entries, stale) = (relative(read.entries), relative(read.stale));
    if entries.is_empty() {
        return Err("of another prefix".into());
    }
    image(read.revision, entries, stale, confirmed).map(Some)
}

fn image(
    revision: u64,
    entries: Vec<Entry>,
    stale: Vec<Entry>,
    confirmed: Option<SystemTime>,
) -> Result<Image, String> {
    let rows = entries.into_iter().map(Entry::row).collect::<Result<_, _>>()?;
    let pinned = stale.into_iter().map(|entry| {
        let since = time(entry.since_unix_secs.unwrap_or(0))?;
        Ok(Pinned { since, row: entry.row()? })
    });
    Ok(Image { revision, rows, pinned: pinned.collect::<Result<_, String>>()?, confirmed })
}

#[cfg(test)]
mod tests;

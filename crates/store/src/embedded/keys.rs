//! Where the keys of the store are kept.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aisix_core::Secret;

use super::crypto::{Key, Ring};
use super::error::{Error, Fault, tell_io};

/// Where the keys that encrypt the store come from. Each place holds one key
/// or more: the first is used for writing, all are used for reading.
#[derive(Debug)]
pub enum KeySource {
    /// A file with a key a line: `<id> <base64 of 32 bytes>`. It may be
    /// readable for its owner alone.
    File(PathBuf),
    /// An environment variable: the same lines (a comma also ends a line), or
    /// just base64.
    Env {
        /// Its name.
        variable: String,
        /// What it holds.
        value: Secret<String>,
    },
    /// `store.key` beside the store, made when the store is made.
    Generated,
}

const GENERATED: &str = "store.key";

enum Place {
    File(PathBuf),
    Variable(String),
}

/// The keys and their place.
pub(super) struct Keys {
    place: Place,
    ring: Mutex<Arc<Ring>>,
}

impl Keys {
    /// Reads the keys. A key is made only for a store that is yet to be made.
    pub(super) fn load(source: KeySource, store: &Path, making: bool) -> Result<Self, Error> {
        let (place, ring) = match source {
            KeySource::Env { variable, value } => {
                let ring = Ring::parse(value.expose());
                let ring =
                    ring.map_err(|why| Error::Key(format!("environment variable {variable}: {why}")))?;
                (Place::Variable(variable), ring)
            }
            KeySource::File(path) => {
                let ring = read(&path, store)?;
                (Place::File(path), ring)
            }
            KeySource::Generated => {
                let path = store.with_file_name(GENERATED);
                if making {
                    make(&path)?;
                }
                let ring = read(&path, store)?;
                (Place::File(path), ring)
            }
        };
        Ok(Self { place, ring: Mutex::new(Arc::new(ring)) })
    }

    pub(super) fn ring(&self) -> Arc<Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_ring(&self, ring: Ring) {
        *self.ring.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Reads the key file again: another process may have changed the key.
    pub(super) fn reload(&self, store: &Path) -> Result<(), Fault> {
        if let Place::File(path) = &self.place {
            self.set_ring(read(path, store).map_err(|error| Fault::Key(error.to_string()))?);
        }
        Ok(())
    }

    /// Runs a step that decrypts; once more, if it met a key that is not known
    /// and the key file knows it by now.
    pub(super) fn with_ring<T>(
        &self,
        store: &Path,
        step: impl Fn(&Ring) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match step(&self.ring()) {
            Err(Fault::UnknownKey(_) | Fault::WrongKey(_)) => {
                self.reload(store)?;
                step(&self.ring())
            }
            done => done,
        }
    }

    /// Puts keys in the place of those that are kept, as far as the place can
    /// be written.
    pub(super) fn keep(&self, ring: Ring) -> Result<(), Fault> {
        if let Place::File(path) = &self.place {
            // A link may point to where the file really is.
            let real = fs::canonicalize(path);
            let written = real.and_then(|path| write(&path, &ring, Existing::Replace));
            written.map_err(|error| {
                Fault::Key(tell_io("cannot write the key file", path, &error).to_string())
            })?;
        }
        self.set_ring(ring);
        Ok(())
    }

    /// Whether a new key has to come from the operator.
    pub(super) fn in_variable(&self) -> bool {
        matches!(self.place, Place::Variable(_))
    }

    /// For people.
    pub(super) fn place(&self) -> String {
        match &self.place {
            Place::File(path) => format!("the key file {}", path.display()),
            Place::Variable(name) => format!("the environment variable {name}"),
        }
    }
}

fn read(path: &Path, store: &Path) -> Result<Ring, Error> {
    let fail =
        |why: String| Error::Key(format!("the key file {} of {}: {why}", path.display(), store.display()));
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => fail("is missing; without it the store cannot be read".to_owned()),
        _ => fail(error.to_string()),
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & !0o600 != 0 {
        return Err(fail(format!("has the mode {mode:04o}, and may have 0600 at most")));
    }
    let text = Secret::new(fs::read_to_string(path).map_err(|error| fail(error.to_string()))?);
    Ring::parse(text.expose()).map_err(fail)
}

/// Makes the key file, unless it is there: another process may be starting
/// too, or an earlier start came no further.
fn make(path: &Path) -> Result<(), Error> {
    let there =
        |error: &std::io::Error| Error::Key(tell_io("cannot make the key file", path, error).to_string());
    if path.try_exists().map_err(|error| there(&error))? {
        return Ok(());
    }
    let key = Key::generate().map_err(|_| Error::Key("the system gives no random numbers".to_owned()))?;
    match write(path, &Ring::only(Arc::new(key)), Existing::Keep) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(there(&error)),
        _ => Ok(()),
    }
}

enum Existing {
    Keep,
    Replace,
}

/// All of the file or nothing of it, on the disk when this returns.
fn write(path: &Path, ring: &Ring, existing: Existing) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Made with the mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for key in ring.keys() {
        file.write_all(key.line().expose().as_bytes())?;
    }
    file.as_file().sync_all()?;
    match existing {
        Existing::Keep => file.persist_noclobber(path)?,
        Existing::Replace => file.persist(path)?,
    };
    fs::File::open(folder)?.sync_all()
}

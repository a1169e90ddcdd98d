//! What a first start tells the person at the terminal.

use std::{
    fmt,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use aisix_core::Secret;
use aisix_store::embedded::EmbeddedStore;
use anyhow::Result;

use super::{ADMIN_KEY_SHOWN, DONE, Surroundings, offer::Offer, turn::Turn};

/// Secrets that are shown this once, and what to do with them. Never logged.
///
/// Until [`Welcome::show`] the next start replaces the secrets, and other
/// gateways with the same folder wait.
#[must_use]
pub(crate) struct Welcome {
    /// How the first start ended, to be noted once this was shown.
    pub(super) outcome: Option<&'static str>,
    pub(super) caller_key: Option<Secret<String>>,
    admin_key: Option<Secret<String>>,
    /// Where things were found, and the models that came of it.
    found: Vec<(String, String)>,
    /// A model that a caller can name.
    example: Option<String>,
    proxy_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    tls: bool,
    data: PathBuf,
    _turn: Turn,
}

impl Welcome {
    pub(super) fn new(
        around: &Surroundings,
        data: &Path,
        admin_key: Option<Secret<String>>,
        turn: Turn,
    ) -> Self {
        Self {
            outcome: None,
            caller_key: None,
            admin_key,
            found: Vec::new(),
            example: None,
            proxy_addr: around.proxy_addr,
            admin_addr: around.admin_addr,
            tls: around.tls,
            data: data.to_owned(),
            _turn: turn,
        }
    }

    pub(super) fn tell(&mut self, offers: Vec<Offer>) {
        self.example = offers.first().map(|offer| offer.example.clone());
        self.found = offers.into_iter().map(|offer| (offer.origin, offer.model)).collect();
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.caller_key.is_none() && self.admin_key.is_none()
    }

    /// Prints it on standard output.
    pub(crate) async fn show(self, store: &EmbeddedStore) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let printed = writeln!(out, "{self}").and_then(|()| out.flush());
        drop(out);
        if let Err(error) = printed {
            tracing::warn!("the first keys could not be printed, so the next start makes new ones: {error}");
            return Ok(());
        }
        self.shown(store).await
    }

    /// Notes that somebody has the secrets now: they stay as they are.
    pub(super) async fn shown(self, store: &EmbeddedStore) -> Result<()> {
        // In this order: a first start that is not over shows everything again.
        if self.admin_key.is_some() {
            store.meta_set(ADMIN_KEY_SHOWN, "yes").await?;
        }
        if let Some(outcome) = self.outcome {
            store.meta_set(DONE, outcome).await?;
        }
        Ok(())
    }
}

/// Where a client on this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl fmt::Display for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.caller_key {
            Some(_) => writeln!(f, "Welcome to AISIX. This store is new; here is what it starts with.\n")?,
            None => writeln!(f, "Welcome to AISIX.\n")?,
        }
        for (origin, model) in &self.found {
            writeln!(f, "  model       {model}  ({origin})")?;
        }
        if let Some(key) = &self.caller_key {
            writeln!(f, "  caller key  {}  (may use every model)", key.expose())?;
        }
        if let Some(key) = &self.admin_key {
            write!(f, "  admin key   {}", key.expose())?;
            match self.admin_addr {
                Some(address) => writeln!(f, "  (for the admin API on {})", reachable(address))?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "  data        {}\n", self.data.display())?;
        writeln!(f, "Keys are shown this once: keep them now.")?;
        if let (Some(key), Some(model)) = (&self.caller_key, &self.example) {
            // The certificate need not name the address.
            let (scheme, option) = if self.tls { ("https", "-k ") } else { ("http", "") };
            let address = reachable(self.proxy_addr);
            writeln!(f, "\nAsk something:\n")?;
            writeln!(f, "  curl {option}{scheme}://{address}/v1/chat/completions \\")?;
            writeln!(
                f,
                "    -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \\",
                key.expose()
            )?;
            let message = r#""messages":[{"role":"user","content":"Hello"}]"#;
            writeln!(f, "    -d '{{\"model\":\"{model}\",{message}}}'")?;
        }
        Ok(())
    }
}

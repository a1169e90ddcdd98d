//! Looking for model servers on this machine.

use std::{net::IpAddr, time::Duration};

use aisix_core::Secret;
use http::uri::Authority;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{Surroundings, offer::Offer};

pub(super) const OLLAMA: &str = "ollama";
pub(super) const LLAMACPP: &str = "llamacpp";
/// More than any list of models is long.
const MOST: u64 = 1 << 20;

/// Where servers are looked for.
pub(super) struct Local<'a> {
    /// Unless `OLLAMA_HOST` says otherwise.
    pub(super) ollama: &'a str,
    pub(super) llamacpp: &'a str,
}

impl Local<'_> {
    /// The addresses that the servers have when nobody configures them.
    pub(super) const USUAL: Self = Self { ollama: "127.0.0.1:11434", llamacpp: "127.0.0.1:8080" };
}

/// What the servers offer that answer in time; `wanted` says for Ollama and
/// llama.cpp whether to look at all.
pub(super) async fn look(around: &Surroundings, local: &Local<'_>, wanted: [bool; 2]) -> Vec<Offer> {
    let [ollama_wanted, llamacpp_wanted] = wanted;
    let ollama = async {
        let place = Place::parse(around.variable("OLLAMA_HOST").unwrap_or(local.ollama));
        if place.is_none() {
            tracing::warn!("OLLAMA_HOST is ignored: it is not of the form [http://]host[:port]");
        }
        ollama(&place?, around.probe).await
    };
    let llamacpp = async { llamacpp(&Place::parse(local.llamacpp)?, around.probe).await };
    let (ollama, llamacpp) = tokio::join!(async { if ollama_wanted { ollama.await } else { None } }, async {
        if llamacpp_wanted { llamacpp.await } else { None }
    },);
    ollama.into_iter().chain(llamacpp).collect()
}

async fn ollama(place: &Place, limit: Duration) -> Option<Offer> {
    let end = Instant::now() + limit;
    let version = timeout_at(end, place.get("/api/version")).await.ok()??;
    version["version"].as_str()?;
    // The list only serves to name a model; being there is enough.
    let tags = timeout_at(end, place.get("/api/tags")).await.ok().flatten();
    let names = tags.iter().flat_map(|tags| tags["models"].as_array().into_iter().flatten());
    let name = names
        .filter_map(|model| model["name"].as_str())
        .find(|name| is_plain(name) && !name.contains("embed"));
    Some(place.offer(OLLAMA, "Ollama", name.unwrap_or("llama3.2")))
}

async fn llamacpp(place: &Place, limit: Duration) -> Option<Offer> {
    let models = timeout(limit, place.get("/v1/models")).await.ok()??;
    let models = models["data"].as_array()?;
    let own = |model: &&Value| model["owned_by"] == "llamacpp";
    let name = models.iter().find(own)?["id"].as_str().filter(|name| is_plain(name));
    Some(place.offer(LLAMACPP, "llama.cpp", name.unwrap_or("default")))
}

/// Whether a name may stand in a command line as it is.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}

/// A server that speaks plain HTTP.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    /// Before every path.
    prefix: String,
}

impl Place {
    /// Reads an address as Ollama reads `OLLAMA_HOST`. A server that listens
    /// on every address is reached on the loopback one.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_matches(['"', '\'']);
        let (port, text) = match text.split_once("://") {
            None => (11434, text),
            Some(("http", rest)) => (80, rest),
            Some(_) => return None,
        };
        let (authority, prefix) = text.split_at(text.find('/').unwrap_or(text.len()));
        let bare = authority.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6);
        let authority = match bare {
            Some(ip) => format!("[{ip}]"),
            None if authority.starts_with(':') || authority.is_empty() => format!("127.0.0.1{authority}"),
            None => authority.to_owned(),
        };
        let read: Authority = authority.parse().ok()?;
        let odd_port = read.port_u16().is_none() && read.host() != authority;
        if authority.contains('@') || odd_port {
            return None;
        }
        let host = match read.host() {
            "0.0.0.0" => "127.0.0.1",
            "[::]" => "[::1]",
            host => host,
        };
        let prefix = prefix.trim_end_matches('/').to_owned();
        let fit = prefix.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        fit.then(|| Self { host: host.to_owned(), port: read.port_u16().unwrap_or(port), prefix })
    }

    fn root(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.prefix)
    }

    fn offer(&self, name: &'static str, title: &str, model: &str) -> Offer {
        Offer {
            name,
            origin: format!("{title} at {}", self.root()),
            label: name,
            api_base: Some(format!("{}/v1", self.root())),
            // Neither asks for one, but a provider key has one.
            secret: Secret::new(name.to_owned()),
            model: format!("{name}/*"),
            upstream: "*",
            example: format!("{name}/{model}"),
        }
    }

    /// The JSON at a path.
    async fn get(&self, path: &str) -> Option<Value> {
        let Self { host, port, prefix } = self;
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((address, *port)).await.ok()?;
        // With HTTP/1.0 the end of the connection is the end of the body.
        let request =
            format!("GET {prefix}{path} HTTP/1.0\r\nHost: {host}:{port}\r\nAccept: application/json\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut reply = Vec::new();
        stream.take(MOST).read_to_end(&mut reply).await.ok()?;
        let (head, body) = reply.split_at(reply.windows(4).position(|end| end == b"\r\n\r\n")? + 4);
        let good = head.starts_with(b"HTTP/1.") && head.get(8..13) == Some(b" 200 ");
        good.then(|| serde_json::from_slice(body).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_ollama_reads_them() {
        for (text, root) in [
            ("", "http://127.0.0.1:11434"),
            ("127.0.0.1", "http://127.0.0.1:11434"),
            (" 'gpu.lan' ", "http://gpu.lan:11434"),
            ("gpu.lan:99", "http://gpu.lan:99"),
            (":99", "http://127.0.0.1:99"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:99", "http://127.0.0.1:99"),
            ("::1", "http://[::1]:11434"),
            ("[::]:99", "http://[::1]:99"),
            ("http://gpu.lan", "http://gpu.lan:80"),
            ("http://gpu.lan:99/ollama/", "http://gpu.lan:99/ollama"),
        ] {
            assert_eq!(Place::parse(text).map(|place| place.root()).as_deref(), Some(root), "{text:?}");
        }
        for text in
            ["https://gpu.lan", "http://me:pw@gpu.lan", "gpu lan", "h:99999", "h:1/a b", "h:1/\r\nx: y"]
        {
            assert_eq!(Place::parse(text), None, "{text:?}");
        }
    }
}

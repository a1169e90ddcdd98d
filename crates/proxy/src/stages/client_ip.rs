//! The address of the client behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::gateway::Settings;

/// The peer, unless it is a trusted proxy that names somebody else.
pub(super) fn resolve(headers: &HeaderMap, peer: IpAddr, settings: &Settings) -> IpAddr {
    let peer = peer.to_canonical();
    let trusted = |ip: &IpAddr| settings.trusted_proxies.iter().any(|net: &IpNet| net.contains(ip));
    if settings.trusted_proxies.is_empty() || !trusted(&peer) {
        return peer;
    }
    let hops: Vec<IpAddr> = headers
        .get_all(&settings.real_ip_header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(parse_hop)
        .collect();
    let found = if settings.real_ip_recursive {
        hops.iter().rev().find(|ip| !trusted(ip)).or(hops.first())
    } else {
        hops.last()
    };
    found.copied().unwrap_or(peer)
}

/// `ip`, `ip:port`, `[v6]` or `[v6]:port`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))?;
    Some(IpAddr::to_canonical(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_in_all_spellings() {
        for (text, ip) in [
            ("1.2.3.4", Some("1.2.3.4")),
            (" 1.2.3.4:80 ", Some("1.2.3.4")),
            ("[::1]:443", Some("::1")),
            ("[::1]", Some("::1")),
            ("::1", Some("::1")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(parse_hop(text), ip.map(|ip| ip.parse().expect("address")), "{text:?}");
        }
    }
}

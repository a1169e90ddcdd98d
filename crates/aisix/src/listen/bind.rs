//! Binding of listening sockets.

use std::net::{SocketAddr, TcpListener as StdListener};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

const BACKLOG: i32 = 4096;

/// A bound address that several threads may listen on.
#[derive(Debug)]
pub(crate) struct Bound {
    sockets: Vec<StdListener>,
    addr: SocketAddr,
}

/// Binds `count` sockets to one address. The kernel spreads connections over
/// them. An address that any other process listens on is an error, although
/// the sockets share it among themselves.
pub(crate) fn bind(section: &str, addr: SocketAddr, count: usize) -> Result<Bound> {
    let listen = || -> std::io::Result<Bound> {
        let first = socket(addr, false)?;
        let bound = first.local_addr()?;
        if count == 1 {
            return Ok(Bound { sockets: vec![first], addr: bound });
        }
        drop(first);
        let sockets = (0..count).map(|_| socket(bound, true)).collect::<Result<_, _>>()?;
        Ok(Bound { sockets, addr: bound })
    };
    listen().with_context(|| format!("{section}: cannot listen on {addr}"))
}

impl Bound {
    /// The address, with the port that was chosen when none was asked for.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// One listener after the other, for the runtime that calls this.
    pub(crate) fn take(&mut self) -> Option<StdListener> {
        self.sockets.pop()
    }

    /// The only listener, for the current runtime.
    pub(crate) fn into_tokio(mut self) -> Result<TcpListener> {
        let socket = self.take().context("the address has no socket left")?;
        Ok(TcpListener::from_std(socket)?)
    }
}

fn socket(addr: SocketAddr, shared: bool) -> std::io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_refused_by_name() {
        let any = "127.0.0.1:0".parse().expect("address");
        let held = bind("proxy.addr", any, 2).expect("free port");
        for count in [1, 2] {
            let error = bind("proxy.addr", held.addr(), count).expect_err("taken");
            let text = format!("{error:#}");
            assert!(
                text.contains("proxy.addr: cannot listen on") && text.contains("Address already in use"),
                "{text}"
            );
        }
    }
}

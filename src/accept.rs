//! Accepting connections. A process without a free file descriptor can accept none: that is told once, and the node is not ready until
//! there is one again.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};

use crate::node::Shared;

/// The part that has trouble.
const PART: &str = "connections";
/// How long to wait after connections could not be accepted: some will be closed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);
/// `ENFILE` and `EMFILE`: the system, or the process, has no descriptor left.
const NO_DESCRIPTOR: [i32; 2] = [23, 24];
/// What can be opened wherever a descriptor is free.
const PROBE: &str = "/dev/null";

/// A listener that outlives a lack of descriptors.
pub(crate) struct Accepting {
    listener: TcpListener,
    shared: Arc<Shared>,
    starved: bool,
}

impl Accepting {
    pub(crate) const fn new(listener: TcpListener, shared: Arc<Shared>) -> Self {
        Self { listener, shared, starved: false }
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. Nothing is lost when this is dropped before it is done.
    pub(crate) async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if self.starved {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                // Nobody may connect for long, so the next connection is not waited for.
                if File::open(PROBE).is_err_and(|error| is_starved(&error)) {
                    continue;
                }
                self.starved = false;
                self.shared.set_trouble(PART, None);
            }
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                // One connection that broke early says nothing about others.
                Err(error) if is_of_connection(&error) => {}
                Err(error) if is_starved(&error) => {
                    self.starved = true;
                    self.shared.set_trouble(PART, Some(format!("no connection can be accepted: {error}")));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn is_starved(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| NO_DESCRIPTOR.contains(&code))
}

impl Listener for Accepting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.address()
    }
}

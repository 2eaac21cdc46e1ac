//! A way from outside to the API server of a standing cluster.
//!
//! The server listens in a namespace that nothing outside reaches. So a port of the machine's own loopback interface is opened
//! before the lab leaves the machine's network, and what comes in there is passed on.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use twill_lab::{LabError, NetNs, Result};

/// An open port.
pub(super) struct Relay {
    listener: TcpListener,
    address: SocketAddr,
}

impl Relay {
    /// Opens a free port in the network that the calling thread is in.
    pub(super) fn open() -> Result<Relay> {
        let system = |source| LabError::System { doing: "open a port of 127.0.0.1".into(), source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(system)?;
        let address = listener.local_addr().map_err(system)?;
        Ok(Relay { listener, address })
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes every connection on to an address that `ns` reaches, as long as the process lives.
    pub(super) fn serve(self, ns: NetNs, target: SocketAddr) {
        thread::spawn(move || {
            for client in self.listener.incoming().flatten() {
                // Whoever calls while the server is away sees the connection end.
                if let Ok(Ok(server)) = ns.within(|| TcpStream::connect(target)) {
                    let _ = join(client, server);
                }
            }
        });
    }
}

fn join(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let back = (server.try_clone()?, client.try_clone()?);
    for (mut from, mut to) in [(client, server), back] {
        thread::spawn(move || {
            // Either end may go away at any time.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

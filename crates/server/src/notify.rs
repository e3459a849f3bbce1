//! Telling systemd that the service is up: one datagram to the socket in `NOTIFY_SOCKET`.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1`, and logs as etcd does. Without a socket nothing is sent.
pub fn ready() {
    crate::info!("notifying init daemon");
    let Some(socket) = std::env::var("NOTIFY_SOCKET").ok().filter(|socket| !socket.is_empty()) else {
        crate::info!("successfully notified init daemon");
        return;
    };
    match send(&socket) {
        Ok(()) => crate::info!("successfully notified init daemon"),
        Err(error) => {
            let error = crate::go_error(&error);
            crate::error!("failed to notify systemd for readiness", "error" => error);
        }
    }
}

fn send(socket: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

//! Binding what the URLs of `--listen-*` name, with Go's options and error texts.

use std::cell::Cell;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::AccessFlags;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::time::Instant;

use super::canonical;
use super::handshake::Security;
use super::shares::Room;
use crate::config::Url;
use crate::log;

/// etcd sets both on accepted connections.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How soon a connection for which there was no room is tried again.
const ROOM_RETRY: Duration = Duration::from_millis(100);
/// How often it is said that connections wait for room.
const ROOM_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Who connects there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Clients: gRPC and HTTP.
    Client,
    /// Clients, gRPC alone: HTTP has listeners of its own.
    Grpc,
    /// Clients, HTTP alone.
    Http,
    /// Probes and metrics.
    Metrics,
    /// Other members: HTTP/1.
    Peer,
}

/// Why an address can't be listened on. The texts are Go's.
#[derive(Debug, Error)]
pub enum BindError {
    /// The port is no port.
    #[error("listen tcp: address {0}: invalid port")]
    Port(String),
    /// The name has no address.
    #[error("listen tcp: lookup {host}: {}", crate::go_error(source))]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The system refused.
    #[error("listen {network} {address}: bind: {}", crate::go_error(source))]
    Bind {
        /// `tcp` or `unix`.
        network: &'static str,
        /// The address as given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound socket. A socket file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    role: Role,
    address: String,
    security: Option<Security>,
    room: Room,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    Unix(UnixListener, Arc<SocketFile>),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An accepted connection, not yet on any runtime.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A socket file.
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    /// Binds the address of `url`. A client's socket file may have a path, a peer's is only the host part, in the
    /// working directory; one that was left behind is replaced.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(url: &Url, role: Role, reuse_port: bool) -> Result<Listener, BindError> {
        if url.is_unix() {
            let path = socket_path(url, role);
            let fail = |source| BindError::Bind { network: "unix", address: path.clone(), source };
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                _ => {}
            }
            let listener = UnixListener::bind(&path).map_err(fail)?;
            listener.set_nonblocking(true).map_err(fail)?;
            let socket = Bound::Unix(listener, Arc::new(SocketFile(PathBuf::from(&path))));
            return Ok(Listener { socket, role, address: path, security: None, room: Room::whole(role) });
        }
        let address = url.authority().to_owned();
        let listener = bind_tcp(&resolve(url)?, reuse_port).map_err(|source| BindError::Bind {
            network: "tcp",
            address: address.clone(),
            source,
        })?;
        // Port 0 lets the system choose; what it chose is then the only useful thing to say.
        let chosen = listener.local_addr().ok().filter(|_| address.ends_with(":0"));
        let address = chosen.map_or(address, |chosen| chosen.to_string());
        Ok(Listener { socket: Bound::Tcp(listener), role, address, security: None, room: Room::whole(role) })
    }

    /// Whether [`Listener::bind`] would bind it now. Nobody can connect meanwhile, and no socket file is touched.
    ///
    /// # Errors
    /// What it would say, as far as can be known.
    pub fn check(url: &Url, role: Role, reuse_port: bool) -> Result<(), BindError> {
        if !url.is_unix() {
            let fail =
                |source| BindError::Bind { network: "tcp", address: url.authority().to_owned(), source };
            return first_bound(&resolve(url)?, |address| socket_at(address, reuse_port).map(drop))
                .map_err(fail);
        }
        let path = socket_path(url, role);
        let fail = |source| BindError::Bind { network: "unix", address: path.clone(), source };
        if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        let folder = Path::new(&path).parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        nix::unistd::access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| fail(error.into()))
    }

    /// The same, with TLS.
    pub fn secured(self, security: Security) -> Listener {
        Listener { security: Some(security), ..self }
    }

    /// The same, with so much room for connections.
    pub(super) fn within(self, room: Room) -> Listener {
        Listener { room, ..self }
    }

    /// What its connections may take.
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// Whether it takes connections without TLS.
    pub fn serves_plain(&self) -> bool {
        self.security.as_ref().is_none_or(|security| security.also_plain)
    }

    /// Whether it speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.security.is_some()
    }

    /// The same socket once more: it stays bound until both are gone.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn share(&self) -> io::Result<Listener> {
        let socket = match &self.socket {
            Bound::Tcp(listener) => Bound::Tcp(listener.try_clone()?),
            Bound::Unix(listener, file) => Bound::Unix(listener.try_clone()?, file.clone()),
        };
        let (address, security) = (self.address.clone(), self.security.clone());
        Ok(Listener { socket, role: self.role, address, security, room: self.room })
    }

    /// Who connects there.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The address as it was given; with port 0, the one that the system chose.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The TCP address that it has, with the port that the system chose if 0 was given.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Puts it on the runtime of this thread.
    pub(crate) fn into_async(self) -> io::Result<Accepting> {
        let Listener { socket, role, address, security, room } = self;
        let socket = match socket {
            Bound::Tcp(listener) => Waiting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Bound::Unix(listener, file) => Waiting::Unix(tokio::net::UnixListener::from_std(listener)?, file),
        };
        let (waiting, said) = (Cell::new(None), Cell::new(None));
        Ok(Accepting { socket, role, address, security, room, waiting, said })
    }
}

/// A listener on a runtime.
pub(crate) struct Accepting {
    socket: Waiting,
    role: Role,
    address: String,
    security: Option<Security>,
    room: Room,
    /// Accepted, and without room yet.
    waiting: Cell<Option<Accepted>>,
    /// When it was said last that there is none.
    said: Cell<Option<Instant>>,
}

enum Waiting {
    Tcp(tokio::net::TcpListener),
    Unix(
        tokio::net::UnixListener,
        #[expect(dead_code, reason = "removes the file when dropped")] Arc<SocketFile>,
    ),
}

impl Accepting {
    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How its connections are secured, if they are.
    pub(crate) fn security(&self) -> Option<&Security> {
        self.security.as_ref()
    }

    /// The next connection, taken off this thread's runtime again: another one serves it. It waits until there is room for
    /// it, and all later ones behind it. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        loop {
            let accepted = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.next().await?,
            };
            match accepted.moved_below(self.room.below) {
                Ok(accepted) => return Ok(accepted),
                Err(accepted) => self.waiting.set(Some(accepted)),
            }
            self.tell_of_no_room();
            tokio::time::sleep(ROOM_RETRY).await;
        }
    }

    fn tell_of_no_room(&self) {
        let now = Instant::now();
        if self.said.get().is_none_or(|said| now >= said + ROOM_LOG_INTERVAL) {
            self.said.set(Some(now));
            log::warn!(
                "too many open files for another connection; it waits",
                "address" => self.address,
                "limit" => super::descriptors(),
            );
        }
    }

    async fn next(&self) -> io::Result<Accepted> {
        loop {
            let accepted = match &self.socket {
                Waiting::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    let stream = stream.into_std()?;
                    prepare(&stream).map(|()| Accepted::Tcp(stream))
                }),
                Waiting::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| stream.into_std().map(Accepted::Unix))
                }
            };
            match accepted {
                Ok(Ok(accepted)) => return Ok(accepted),
                // These errors are that one connection's: it was reset already.
                Ok(Err(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Accepted {
    /// The same connection with a descriptor below this number, or as it was if all of those are in use.
    fn moved_below(self, below: RawFd) -> Result<Accepted, Accepted> {
        if self.descriptor() < below {
            return Ok(self);
        }
        let moved = match &self {
            Accepted::Tcp(stream) => stream.try_clone().map(Accepted::Tcp),
            Accepted::Unix(stream) => stream.try_clone().map(Accepted::Unix),
        };
        match moved {
            Ok(moved) if moved.descriptor() < below => Ok(moved),
            _ => Err(self),
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Accepted::Tcp(stream) => stream.as_raw_fd(),
            Accepted::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// The two ends as Go prints them: ours and theirs.
    pub(super) fn addresses(&self) -> (String, String) {
        match self {
            Accepted::Tcp(stream) => {
                let shown =
                    |address: io::Result<SocketAddr>| address.map(|address| canonical(address).to_string());
                (
                    shown(stream.local_addr()).unwrap_or_default(),
                    shown(stream.peer_addr()).unwrap_or_default(),
                )
            }
            Accepted::Unix(_) => ("@".to_owned(), "@".to_owned()),
        }
    }

    /// The address of the other side, if it has one.
    pub(super) fn remote(&self) -> Option<std::net::IpAddr> {
        match self {
            Accepted::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Accepted::Unix(_) => None,
        }
    }
}

fn prepare(stream: &std::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn resolve(url: &Url) -> Result<Vec<SocketAddr>, BindError> {
    let (host, port) = (url.host(), url.port());
    let port: u16 = match port {
        "" => 0,
        _ => port.parse().map_err(|_| BindError::Port(port.to_owned()))?,
    };
    if host == "0.0.0.0" {
        // As Go: all addresses of both families, or of IPv4 where there is nothing else.
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), ([0, 0, 0, 0], port).into()]);
    }
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|source| BindError::Lookup { host: host.to_owned(), source })?
        .collect();
    // One address, IPv4 before IPv6, as Go chooses it.
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    Ok(chosen.copied().into_iter().collect())
}

fn bind_tcp(addresses: &[SocketAddr], reuse_port: bool) -> io::Result<std::net::TcpListener> {
    first_bound(addresses, |address| {
        let socket = socket_at(address, reuse_port)?;
        socket.listen(backlog())?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    })
}

/// What the first of the addresses gives that can be bound. One that is in use is the one that was meant.
fn first_bound<T>(addresses: &[SocketAddr], bind: impl Fn(&SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match bind(address) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// A socket that is bound, and does not listen yet.
fn socket_at(address: &SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&(*address).into())?;
    Ok(socket)
}

/// A client's socket file may have a path, a peer's is only the host part, in the working directory.
fn socket_path(url: &Url, role: Role) -> String {
    match role {
        Role::Peer | Role::Metrics => url.authority().to_owned(),
        Role::Client | Role::Grpc | Role::Http => format!("{}{}", url.authority(), url.path()),
    }
}

/// The longest queue that the system allows, as Go asks for.
fn backlog() -> i32 {
    let setting = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    setting.and_then(|text| text.trim().parse().ok()).unwrap_or(128)
}

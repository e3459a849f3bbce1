//! The members that a gateway hands connections to, and which of them answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::log;

/// Longest wait for a connection to a member.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A member that is gone without a word is found out; Go's.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The members, all alike. Shared by the threads.
pub(super) struct Remotes {
    list: Vec<Remote>,
    /// The place of the next one to be asked, before it is taken modulo their number.
    next: AtomicUsize,
    retry_delay: Duration,
}

struct Remote {
    address: String,
    is_left_out: AtomicBool,
}

impl Remotes {
    /// `addresses`: hosts with ports, at least one.
    pub(super) fn new(addresses: Vec<String>, retry_delay: Duration) -> Remotes {
        let remote = |address| Remote { address, is_left_out: AtomicBool::new(false) };
        Remotes { list: addresses.into_iter().map(remote).collect(), next: AtomicUsize::new(0), retry_delay }
    }

    /// All of them.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.list.iter().map(|remote| remote.address.clone()).collect()
    }

    /// The next one that is not left out.
    fn pick(&self) -> Option<&Remote> {
        let turns = 0..self.list.len();
        let places = turns.map(|_| self.next.fetch_add(1, Ordering::Relaxed) % self.list.len());
        places.map(|place| &self.list[place]).find(|remote| !remote.is_left_out.load(Ordering::Relaxed))
    }

    /// A connection to the next one that answers. Those that do not are left out from now on.
    pub(super) async fn connect(&self) -> Option<TcpStream> {
        while let Some(remote) = self.pick() {
            match dial(&remote.address).await {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    if !remote.is_left_out.swap(true, Ordering::Relaxed) {
                        let (address, interval) = (&remote.address, self.retry_delay);
                        log::warn!("deactivated endpoint", "address" => address, "interval" => interval, "error" => error);
                    }
                }
            }
        }
        None
    }

    /// Tries those again that are left out, each time the delay has passed.
    pub(super) async fn revive(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.retry_delay).await;
            let mut attempts = tokio::task::JoinSet::new();
            for place in 0..self.list.len() {
                if self.list[place].is_left_out.load(Ordering::Relaxed) {
                    let remotes = self.clone();
                    attempts.spawn_local(async move { remotes.try_again(place).await });
                }
            }
            while attempts.join_next().await.is_some() {}
        }
    }

    async fn try_again(&self, place: usize) {
        let Remote { address, is_left_out } = &self.list[place];
        match dial(address).await {
            Ok(_) => {
                is_left_out.store(false, Ordering::Relaxed);
                log::info!("activated", "address" => address);
            }
            Err(error) => log::warn!(
                "failed to activate endpoint (stay inactive for another interval)",
                "address" => address,
                "interval" => self.retry_delay,
                "error" => error,
            ),
        }
    }
}

/// # Errors
/// Why there is no connection, in Go's words.
async fn dial(address: &str) -> Result<TcpStream, String> {
    let connected = tokio::time::timeout(DIAL_TIMEOUT, connect::tcp(address)).await;
    let prepared = match connected {
        Ok(Ok(stream)) => prepare(&stream).map(|()| stream),
        Ok(Err(error)) => Err(error),
        Err(_) => return Err(format!("dial tcp {address}: i/o timeout")),
    };
    prepared.map_err(|error| format!("dial tcp {address}: connect: {}", crate::go_error(&error)))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns_and_some_are_left_out() {
        let remotes = Remotes::new(["a:1", "b:1", "c:1"].map(str::to_owned).to_vec(), Duration::ZERO);
        let picked = || remotes.pick().map(|remote| remote.address.as_str());
        assert_eq!(
            [picked(), picked(), picked(), picked()],
            [Some("a:1"), Some("b:1"), Some("c:1"), Some("a:1")]
        );
        remotes.list[1].is_left_out.store(true, Ordering::Relaxed);
        assert_eq!([picked(), picked(), picked()], [Some("c:1"), Some("a:1"), Some("c:1")]);
        for remote in &remotes.list {
            remote.is_left_out.store(true, Ordering::Relaxed);
        }
        assert_eq!(picked(), None);
    }
}

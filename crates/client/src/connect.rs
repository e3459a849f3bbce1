//! TCP connections to hosts with several addresses: one that takes nothing and refuses nothing, as IPv6 behind some
//! filters, must not use up the time that the others need. The server, which depends on no client, has the same.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long an address may take before the next one is tried beside it; Go's.
const HEAD_START: Duration = Duration::from_millis(300);

/// Connects to `host:port`. The future may be dropped.
///
/// # Errors
/// Why the host is not known, or else why the first address that failed did.
pub(crate) async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host(authority).await?.collect();
    first(addresses, TcpStream::connect::<SocketAddr>).await
}

/// Tries the addresses, the next one when one has failed or the last takes long. The first that answers is taken, and the
/// other attempts are given up.
pub(crate) async fn first<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut waiting = families_in_turn(addresses).into_iter().peekable();
    let mut attempts = JoinSet::new();
    let mut failure = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(connect(address));
        }
        let patience = waiting.peek().map_or(Duration::MAX, |_| HEAD_START);
        match tokio::time::timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(connection)))) => return Ok(connection),
            Ok(Some(Ok(Err(error)))) => failure = failure.or(Some(error)),
            // A panic, which is reported where it happens, or a slow one.
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => {
                return Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address")));
            }
        }
    }
}

/// The resolver's order, but each second one is of the other family than the first: a whole family may be cut off.
fn families_in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let leads = addresses.first().map(SocketAddr::is_ipv4);
    let (leading, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| Some(address.is_ipv4()) == leads);
    let mut others = others.into_iter();
    let mut order = Vec::new();
    for address in leading {
        order.push(address);
        order.extend(others.next());
    }
    order.extend(others);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More of it is tested in the server.
    #[tokio::test(start_paused = true)]
    async fn a_silent_address_does_not_keep_the_others_waiting() {
        let silent: SocketAddr = "[fd00::1]:1".parse().unwrap();
        let answers: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let connect = move |address| async move {
            if address == silent {
                std::future::pending::<()>().await;
            }
            Ok(address)
        };
        let both = tokio::time::timeout(Duration::from_secs(2), first(vec![silent, answers], connect));
        assert_eq!(both.await.expect("within a dial timeout").unwrap(), answers);
    }
}

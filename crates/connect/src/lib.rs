//! TCP connections to hosts with several addresses: one that takes nothing and refuses nothing, as IPv6 behind some
//! filters, must not use up the time that the others need. The server and the client use it; it knows nothing of ours.
#![forbid(unsafe_code)]

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
pub async fn tcp(authority: &str) -> io::Result<TcpStream> {
    to_any(tokio::net::lookup_host(authority).await?.collect()).await
}

/// Connects to one of a host's addresses, in the resolver's order. The future may be dropped.
///
/// # Errors
/// Why the first address that failed did.
pub async fn to_any(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    first(addresses, TcpStream::connect::<SocketAddr>).await
}

/// Tries the addresses, the next one when one has failed or the last takes long. The first that answers is taken, and the
/// other attempts are given up.
async fn first<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
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
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    const SILENT: &str = "[fd00::1]:1";
    const REFUSES: &str = "10.0.0.1:2";
    const REFUSES_TOO: &str = "[fd00::2]:2";
    const ANSWERS: &str = "10.0.0.2:3";

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What became of it, and which addresses were tried after how many milliseconds.
    async fn tried(texts: &[&str]) -> (io::Result<SocketAddr>, Vec<(SocketAddr, u128)>) {
        let (began, tried) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let result = first(addresses(texts), |address| {
            tried.lock().unwrap().push((address, began.elapsed().as_millis()));
            async move {
                match address.port() {
                    1 => std::future::pending().await,
                    2 => Err(io::Error::other(address.to_string())),
                    _ => Ok(address),
                }
            }
        });
        let result = result.await;
        (result, Arc::into_inner(tried).unwrap().into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_does_not_keep_the_next_one_waiting() {
        let (result, tried) = tried(&[SILENT, "[fd00::3]:1", REFUSES, ANSWERS]).await;
        assert_eq!(result.unwrap(), ANSWERS.parse().unwrap());
        let order = [(SILENT, 0), (REFUSES, 300), ("[fd00::3]:1", 300), (ANSWERS, 600)];
        assert_eq!(tried, order.map(|(text, after)| (text.parse().unwrap(), after)));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_not_waited_for_and_the_first_is_told() {
        let (result, tried) = tried(&[REFUSES, REFUSES_TOO]).await;
        assert_eq!(result.unwrap_err().to_string(), REFUSES);
        assert_eq!(tried.iter().map(|(_, after)| *after).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(self::tried(&[]).await.0.unwrap_err().to_string(), "no address");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_later_is_given_up() {
        let (held, given_up) = oneshot::channel::<()>();
        let held = Mutex::new(Some(held));
        let result = first(addresses(&[SILENT, ANSWERS]), |address| {
            let held = held.lock().unwrap().take();
            async move {
                if held.is_some() {
                    std::future::pending::<()>().await;
                }
                drop(held);
                Ok(address)
            }
        });
        assert_eq!(result.await.unwrap(), ANSWERS.parse().unwrap());
        given_up.await.expect_err("nobody holds it any more");
    }

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

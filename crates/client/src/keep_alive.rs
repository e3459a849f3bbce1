//! Leases that are renewed again and again, or once.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use wire::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use wire::{ApiError, Status};

use crate::{Client, Deadline, Duplex, Error};

/// How long a stream that broke rests before another one is opened: as etcd's own client.
const PAUSE: Duration = Duration::from_millis(500);

/// Added to the dial timeout: how long a lease is tried to be renewed for the first time.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// A lease that is renewed each third of its time to live, for as long as [`LeaseKeepAlive::next`] is awaited.
///
/// A stream of its own, opened again when it broke, at the next endpoint. Dropping it resets the stream; the lease then
/// lives for the rest of its time.
pub struct LeaseKeepAlive {
    client: Client,
    id: i64,
    stream: Option<Duplex<LeaseKeepAliveRequest, LeaseKeepAliveResponse>>,
    /// A request is on its way.
    asked: bool,
    /// When to ask next.
    due: Instant,
    /// When the lease may have expired if nothing is heard.
    deadline: Instant,
}

impl LeaseKeepAlive {
    pub(crate) fn new(client: Client, id: i64, dial_timeout: Duration) -> Self {
        let now = Instant::now();
        let deadline = now + dial_timeout + FIRST_PATIENCE;
        LeaseKeepAlive { client, id, stream: None, asked: false, due: now, deadline }
    }

    /// The next renewal. Nothing when the lease is over, or may be: the server says so, or has said nothing for as long as
    /// the lease was to live (for the first time, for the dial timeout and a second). Cancel safe.
    pub async fn next(&mut self) -> Option<LeaseKeepAliveResponse> {
        let deadline = self.deadline;
        let renewed = tokio::time::timeout_at(deadline, self.renew()).await.ok()?;
        let ttl = Duration::from_secs(u64::try_from(renewed.ttl).ok().filter(|ttl| *ttl > 0)?);
        let now = Instant::now();
        // A time that is too far off to be represented never comes.
        self.due = now.checked_add(ttl / 3).unwrap_or(now + FAR);
        self.deadline = now.checked_add(ttl).unwrap_or(now + FAR);
        Some(renewed)
    }

    /// Asks when it is time to, again and again, until an answer comes.
    async fn renew(&mut self) -> LeaseKeepAliveResponse {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    sleep_until(self.due).await;
                    self.stream.insert(self.client.keep_alive_stream())
                }
            };
            let answer = tokio::select! {
                answer = stream.next() => answer,
                () = sleep_until(self.due), if !self.asked => {
                    // A request of a few bytes is below every limit, and the queue is empty.
                    let _ = stream.send(LeaseKeepAliveRequest { id: self.id }).await;
                    self.asked = true;
                    continue;
                }
            };
            self.asked = false;
            if let Ok(Some(answer)) = answer {
                return answer;
            }
            self.stream = None;
            self.client.leave();
            self.due = self.due.max(Instant::now() + PAUSE);
        }
    }
}

/// A century.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Client {
    /// Renews a lease once. Tried again while the server, or the connection, is unavailable.
    ///
    /// # Errors
    /// As every call; [`ApiError::LeaseNotFound`] for a lease that is over.
    pub async fn keep_alive_once(
        &self,
        id: i64,
        deadline: Deadline,
    ) -> Result<LeaseKeepAliveResponse, Error> {
        let renew = async {
            loop {
                let mut stream = self.keep_alive_stream();
                stream.send(LeaseKeepAliveRequest { id }).await?;
                match stream.next().await {
                    Ok(Some(renewed)) if renewed.ttl > 0 => return Ok(renewed),
                    Ok(Some(_)) => return Err(Error::Status(ApiError::LeaseNotFound.into())),
                    Ok(None) => return Err(Error::Status(Status::new(wire::Code::Unknown, "EOF"))),
                    Err(error) if !error.may_pass() => return Err(error),
                    Err(_) => {
                        self.leave();
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        deadline.bound(renew).await
    }
}

//! Round trips, measured every few seconds on a connection of its own.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::body::PeerBody;
use super::dial::{Connection, Patience, answer_text};
use super::link::Link;
use crate::log;

/// A clock that is further off is said; etcd's limit.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(1);

/// Probes again and again.
pub(super) async fn run(link: Rc<Link>) {
    let mut connection = None;
    let (mut was_well, mut was_in_time) = (true, true);
    loop {
        let probed = timeout(link.limits().stall_timeout, probe(&link, &mut connection)).await;
        let error = match probed {
            Ok(Ok(difference)) => {
                was_well = true;
                let is_in_time = difference <= CLOCK_DIFFERENCE_MAX;
                if was_in_time && !is_in_time {
                    log::warn!(
                        "prober found high clock drift",
                        "remote-peer-id" => link.id().to_string(),
                        "clock-drift" => difference,
                    );
                }
                was_in_time = is_in_time;
                None
            }
            Ok(Err(error)) => Some(error),
            Err(_) => Some("i/o timeout".to_owned()),
        };
        if let Some(error) = error {
            connection = None;
            link.stats().probes_lost.add(1);
            if std::mem::replace(&mut was_well, false) {
                log::debug!(
                    "prober detected unhealthy status",
                    "remote-peer-id" => link.id().to_string(),
                    "error" => error,
                );
            }
        }
        sleep(link.limits().probe_interval).await;
    }
}

/// One round trip; answers how far the clocks differ.
#[expect(clippy::disallowed_methods, reason = "how far clocks differ is logged, and nothing follows from it")]
async fn probe(link: &Link, kept: &mut Option<Connection>) -> Result<Duration, String> {
    let is_open = match kept {
        Some(connection) => connection.is_ready().await,
        None => false,
    };
    if !is_open {
        let url = link.url().ok_or("the peer has no URL that can be dialled")?;
        let limits = link.limits();
        let stall = Some(limits.stall_timeout);
        let patience = Patience { dial: limits.dial_timeout, read: stall, write: stall };
        let opened = Connection::open(&link.shared().dial, &url, patience).await;
        *kept = Some(opened.map_err(|error| error.to_string())?);
    }
    let connection = kept.as_mut().expect("it was opened");
    let request =
        Request::builder().method(Method::GET).uri("/raft/probing").body(PeerBody::from(Bytes::new()));
    let started = Instant::now();
    let answer = connection.send(request.map_err(|error| error.to_string())?).await;
    let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("got unexpected HTTP status code {}", head.status));
    }
    let text = answer_text(body).await?;
    let took = started.elapsed();
    let theirs = parse(&text).ok_or("no answer of a prober")?;
    link.stats().observe_round_trip(took);
    let difference = Timestamp::now().duration_since(theirs).unsigned_abs().saturating_sub(took / 2);
    link.stats().clock_difference_ms.set(difference.as_millis() as u64);
    Ok(difference)
}

/// The other's clock, if it is well.
fn parse(text: &str) -> Option<Timestamp> {
    let health: serde_json::Value = serde_json::from_str(text).ok()?;
    health["OK"].as_bool().filter(|ok| *ok)?;
    health["Now"].as_str()?.parse().ok()
}

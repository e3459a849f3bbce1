//! How a member is: `/health`, `/livez`, `/readyz` and their single checks.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use super::debug::RaftStatus;
use super::query::Query;
use super::{error, json_text, not_allowed, plain};
use crate::config::quote;
use crate::metrics::{Encoded, Format};
use crate::{LocalFuture, log};

/// What is asked of the member to say how it is.
pub trait Health: 'static {
    /// The alarms that are on, of any member.
    fn alarms(&self) -> Vec<Alarm>;

    /// Whether this member knows of a leader.
    fn has_leader(&self) -> bool;

    /// Reads one key, as user root where there are users: from the local store, or, if `linearizable`, through
    /// consensus.
    ///
    /// # Errors
    /// The error's text as etcd gives it.
    fn read(&self, linearizable: bool) -> LocalFuture<'_, Result<(), String>>;

    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;

    /// The page `/metrics` in a format, where there is one; `None` in the end where the process is about to end.
    fn metrics(&self, _format: Format) -> Option<LocalFuture<'_, Option<Encoded>>> {
        None
    }

    /// `/health` has said how the member is.
    fn health_ended(&self, _is_well: bool) {}

    /// A check of `/livez` or `/readyz`, by these names, has ended.
    fn check_ended(&self, _probe: &'static str, _check: &'static str, _is_well: bool) {}

    /// What `/debug/vars` shows of consensus.
    fn raft_status(&self) -> RaftStatus {
        RaftStatus::default()
    }

    /// What `/version` shows.
    fn versions(&self) -> Versions;
}

/// An alarm, as far as `/health` tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A member's space is used up.
    NoSpace,
    /// A member's data differs.
    Corrupt,
    /// Of a later version.
    Unknown,
}

impl Alarm {
    /// The name in `exclude=` and in the reason.
    fn name(self) -> &'static str {
        match self {
            Alarm::NoSpace => "NOSPACE",
            Alarm::Corrupt => "CORRUPT",
            Alarm::Unknown => "UNKNOWN",
        }
    }
}

/// The versions that a member knows, as `X.Y.Z`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The cluster's, once it is decided.
    pub cluster: Option<String>,
    /// The storage's, once it is known.
    pub storage: Option<String>,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    /// Asks it. A read ends by itself, as in etcd, which gives it no deadline here.
    async fn run(self, health: &dyn Health) -> Result<(), String> {
        match self {
            Check::DataCorruption if health.alarms().contains(&Alarm::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::NonLearner if health.is_learner() => Err("not supported for learner".to_owned()),
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => health.read(false).await,
            Check::LinearizableRead => health.read(true).await,
        }
    }
}

/// Whether the process serves at all.
const LIVEZ: [Check; 1] = [Check::SerializableRead];
/// Whether it serves everything.
const READYZ: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// What a path asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// In one line.
    Health,
    /// Several checks; single ones may be left out.
    All(&'static str, &'static [Check]),
    /// One check.
    One(&'static str, Check),
}

/// What this path asks, if anything.
pub(super) fn probe(path: &str) -> Option<Probe> {
    match path {
        "/health" => Some(Probe::Health),
        "/livez" => Some(Probe::All("/livez", &LIVEZ)),
        "/readyz" => Some(Probe::All("/readyz", &READYZ)),
        _ => {
            let (root, name) = path.strip_prefix('/')?.split_once('/')?;
            let (root, checks): (_, &[Check]) = match root {
                "livez" => ("/livez", &LIVEZ),
                "readyz" => ("/readyz", &READYZ),
                _ => return None,
            };
            checks.iter().find(|check| check.name() == name).map(|check| Probe::One(root, *check))
        }
    }
}

impl Probe {
    pub(super) async fn answer(
        self,
        method: &Method,
        query: &Query,
        health: &dyn Health,
        timeout: Duration,
    ) -> Response<Full<Bytes>> {
        if *method != Method::GET {
            match self {
                Probe::Health => log::warn!("/health error", "status-code" => 405),
                _ => log::warn!("Health request error", "path" => self.path(), "status-code" => 405),
            }
            return not_allowed();
        }
        match self {
            Probe::Health => one_line(query, health, timeout).await,
            Probe::All(_, all) => {
                let excluded = query.all("exclude");
                let kept: Vec<Check> =
                    all.iter().copied().filter(|check| !excluded.contains(&check.name())).collect();
                let is_check = |name: &&str| all.iter().any(|check| check.name() == *name);
                let mut missing: Vec<String> = excluded
                    .iter()
                    .filter(|name| !name.is_empty() && !is_check(name))
                    .map(|name| quote(name))
                    .collect();
                missing.dedup();
                if !missing.is_empty() {
                    log::warn!(
                        "some health checks cannot be excluded",
                        "missing-health-checks" => missing.join(","),
                    );
                }
                self.report(&kept, query, health).await
            }
            Probe::One(_, check) => self.report(&[check], query, health).await,
        }
    }

    /// Its name among the kinds of probes.
    fn kind(self) -> &'static str {
        let path = match self {
            Probe::Health => "/health",
            Probe::All(root, _) | Probe::One(root, _) => root,
        };
        path.trim_start_matches('/')
    }

    fn path(self) -> String {
        match self {
            Probe::Health => "/health".to_owned(),
            Probe::All(root, _) => root.to_owned(),
            Probe::One(root, check) => format!("{root}/{}", check.name()),
        }
    }

    /// Runs checks; says each one's outcome if one fails, or if it is asked to.
    async fn report(self, checks: &[Check], query: &Query, health: &dyn Health) -> Response<Full<Bytes>> {
        let (mut said, mut is_well) = (String::new(), true);
        for check in checks {
            let ended = check.run(health).await;
            health.check_ended(self.kind(), check.name(), ended.is_ok());
            match ended {
                Ok(()) => said.push_str(&format!("[+]{} ok\n", check.name())),
                Err(why) => {
                    said.push_str(&format!("[-]{} failed: {why}\n", check.name()));
                    is_well = false;
                }
            }
        }
        if !is_well {
            log::error!(
                "Health check error",
                "path" => self.path(),
                "reason" => said,
                "status-code" => 503,
            );
            return error(StatusCode::SERVICE_UNAVAILABLE, &said);
        }
        log::debug!("Health check OK", "path" => self.path(), "reason" => said, "status-code" => 200);
        let said = if query.first("verbose").is_some() { said } else { String::new() };
        error(StatusCode::OK, &format!("{said}ok"))
    }
}

async fn read(health: &dyn Health, linearizable: bool, timeout: Duration) -> Result<(), String> {
    let read = tokio::time::timeout(timeout, health.read(linearizable)).await;
    read.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

/// Alarms, then a leader, then a read; the first that is wrong is the reason.
async fn one_line(query: &Query, health: &dyn Health, timeout: Duration) -> Response<Full<Bytes>> {
    let excluded = query.all("exclude");
    let serializable = query.first("serializable") == Some("true");
    let reason =
        if let Some(alarm) = health.alarms().into_iter().find(|alarm| !excluded.contains(&alarm.name())) {
            Some(format!("ALARM {}", alarm.name()))
        } else if !serializable && !health.has_leader() {
            Some("RAFT NO LEADER".to_owned())
        } else {
            read(health, !serializable, timeout).await.err().map(|error| format!("RANGE ERROR:{error}"))
        };
    health.health_ended(reason.is_none());
    let Some(reason) = reason else {
        log::debug!("/health OK", "status-code" => 200);
        return plain(StatusCode::OK, r#"{"health":"true","reason":""}"#);
    };
    let body = format!(r#"{{"health":"false","reason":{}}}"#, json_text(&reason));
    log::warn!("/health error", "output" => body, "status-code" => 503);
    error(StatusCode::SERVICE_UNAVAILABLE, &body)
}

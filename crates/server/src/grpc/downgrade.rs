//! `Maintenance.Downgrade`: whether the cluster may be lowered by one version, and that it is to be (etcd: v3_server.go,
//! version/version.go). The leader then lowers the cluster's version (`node`).

use prost::Message as _;
use store::Membership;
use tokio::time::Instant;
use wire::etcdserverpb::downgrade_request::DowngradeAction;
use wire::membershippb::DowngradeInfoSetRequest;
use wire::{ApiError, Status, etcdserverpb as pb};

use super::member::MemberView;
use crate::auth::Asker;
use crate::lane::LaneHandle;
use crate::log;

/// A version as clusters have it: the first two numbers.
type Version = (u64, u64);

/// What Status says of downgrades.
pub fn info(membership: &Membership) -> pb::DowngradeInfo {
    let target = membership.downgrade_target();
    pb::DowngradeInfo { enabled: target.is_some(), target_version: target.unwrap_or_default().to_owned() }
}

/// The member that is asked, and by whom.
#[derive(Clone, Copy)]
pub struct By<'a> {
    /// The member.
    pub member: &'a MemberView,
    /// Where it is asked.
    pub lane: &'a LaneHandle,
    /// Who asks.
    pub asker: &'a Asker,
}

/// Runs a call; the answer is the cluster's version, as `3.7`.
///
/// # Errors
/// What etcd answers.
pub async fn run(
    by: By<'_>,
    request: &pb::DowngradeRequest,
    deadline: Option<Instant>,
) -> Result<String, Status> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => {
            let (current, _) = validate(by, &request.version, deadline).await?;
            Ok(current)
        }
        Ok(DowngradeAction::Enable) => {
            let allowed = validate(by, &request.version, deadline).await;
            let (current, (major, minor)) = allowed.inspect_err(|status| {
                log::warn!("reject downgrade request", "error" => status.message);
            })?;
            let set = DowngradeInfoSetRequest { enabled: true, ver: format!("{major}.{minor}.0") };
            propose(by, set, deadline).await?;
            Ok(current)
        }
        Ok(DowngradeAction::Cancel) => {
            let (current, canceled) = cancel(by, deadline).await;
            // As in etcd, which only writes it down.
            if let Err(status) = canceled {
                log::warn!("failed to cancel downgrade", "error" => status.message);
            }
            current
        }
        Err(_) => Err(ApiError::UnknownMethod.into()),
    }
}

/// The cluster's version, and the target if it is the one that is allowed.
async fn validate(by: By<'_>, version: &str, deadline: Option<Instant>) -> Result<(String, Version), Status> {
    let target = parse(version).or_else(|| parse(&format!("{version}.0")));
    let target = target.ok_or(ApiError::WrongDowngradeVersionFormat)?;
    by.lane.linearizable(deadline).await?;
    let membership = by.member.reader.membership();
    let (major, minor) = cluster_version(&membership)?;
    if Some(target) != minor.checked_sub(1).map(|minor| (major, minor)) {
        return Err(ApiError::InvalidDowngradeTargetVersion.into());
    }
    if membership.downgrade_target().is_some() {
        return Err(ApiError::DowngradeInProcess.into());
    }
    Ok((format!("{major}.{minor}"), target))
}

async fn cancel(by: By<'_>, deadline: Option<Instant>) -> (Result<String, Status>, Result<(), Status>) {
    let confirmed = by.lane.linearizable(deadline).await;
    let membership = by.member.reader.membership();
    // Before what follows from it: the version rises again.
    let current = cluster_version(&membership).map(|(major, minor)| format!("{major}.{minor}"));
    let canceled = match confirmed {
        Ok(()) if membership.downgrade_target().is_none() => Err(ApiError::NoInflightDowngrade.into()),
        Ok(()) => propose(by, DowngradeInfoSetRequest::default(), deadline).await,
        Err(status) => Err(status),
    };
    (current, canceled)
}

async fn propose(by: By<'_>, set: DowngradeInfoSetRequest, deadline: Option<Instant>) -> Result<(), Status> {
    let asker = by.asker.clone();
    let encode = move |id: node::RequestId, _: &mut dyn FnMut() -> node::RequestId| {
        let (username, auth_revision) = (asker.caller().name.to_owned(), asker.revision());
        let request = pb::InternalRaftRequest {
            header: Some(pb::RequestHeader { id: id.0, username, auth_revision }),
            downgrade_info_set: Some(set),
            ..pb::InternalRaftRequest::default()
        };
        (request.encode_to_vec(), false)
    };
    by.lane.propose(deadline, encode).await.map(drop)
}

fn cluster_version(membership: &Membership) -> Result<Version, Status> {
    let version = membership.cluster_version().and_then(parse);
    Ok(version.ok_or(ApiError::ClusterVersionUnavailable)?)
}

/// A semantic version: three numbers, then perhaps a suffix.
fn parse(text: &str) -> Option<Version> {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = numbers.split('.').map(|part| part.parse().ok().filter(|_| !part.starts_with('+')));
    let version = (parts.next()??, parts.next()??);
    let _patch: u64 = parts.next()??;
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_etcd_takes_them() {
        for (text, version) in [
            ("3.6.0", Some((3, 6))),
            ("3.6.9", Some((3, 6))),
            ("3.6.0-rc.1", Some((3, 6))),
            ("3.6.0+x", Some((3, 6))),
            ("3.6", None),
            ("3", None),
            ("", None),
            ("3.x.0", None),
            ("3.6.0.0", None),
            ("v3.6.0", None),
        ] {
            assert_eq!(parse(text), version, "{text:?}");
        }
    }
}

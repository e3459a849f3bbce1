//! The comparison that a member makes before it serves anybody (gate `InitialCorruptCheck`).

use std::rc::Rc;

use node::Identity;
use node::corruption::{Initial, PeerHash, initial};
use store::{KvHash, Member, Reader};
use tokio::task::LocalSet;

use super::ask::{Answer, Asker};
use crate::config::Config;
use crate::log;
use crate::peer::{self, Dial, NetDial};

/// Compares this member's data with what the others have at its revision. Those that do not answer are passed over.
///
/// # Errors
/// If another one's differs, in etcd's words; or a hash cannot be made.
pub(in crate::member) fn check_at_start(
    config: &Config,
    identity: Identity,
    reader: &Reader,
) -> anyhow::Result<()> {
    let own = format!("{:x}", identity.member_id);
    let timeout = config.request_timeout();
    log::info!("starting initial corruption check", "local-member-id" => own, "timeout" => timeout);
    let (hash, _) =
        reader.hash_kv(0).map_err(|error| anyhow::anyhow!("{own} failed to fetch hash ({error})"))?;

    let settings = super::super::peer_settings(config, identity);
    let dial: Rc<dyn Dial> = Rc::new(NetDial::new(settings.security.clone()));
    let settings = Rc::new(settings);
    let asker = Asker::new(identity.member_id, timeout, move |url, question, patience| -> Answer {
        let (dial, settings) = (Rc::clone(&dial), Rc::clone(&settings));
        Box::pin(async move { peer::ask(&dial, &url, &settings, question, patience).await })
    });
    let membership = reader.membership();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let peers = LocalSet::new().block_on(&runtime, asker.ask(&membership, hash.hash_revision));
    // Names that are still being looked up are waited for no longer than that.
    runtime.shutdown_background();

    let mut differs = false;
    for peer in &peers {
        let found = initial(hash, &peer.answer);
        differs |= found == Initial::OtherHash;
        describe(&own, hash, membership.member(peer.id), (peer, found));
    }
    if differs {
        anyhow::bail!("{own} found data inconsistency with peers");
    }
    log::info!("initial corruption checking passed; no corruption", "local-member-id" => own);
    Ok(())
}

/// Says what another member's answer means, if it is not the same hash.
fn describe(own: &str, hash: KvHash, peer: Option<&Member>, (told, found): (&PeerHash, Initial)) {
    let text = match found {
        Initial::Same | Initial::NoAnswer => return,
        Initial::OtherHash => "found different hash values from remote peer",
        Initial::OtherCompaction => "found different compact revision values from remote peer",
        Initial::PeerBehind => "cannot fetch hash from slow remote peer",
        Initial::Behind => "cannot fetch hash from remote peer; local member is behind",
        Initial::OtherCluster => "cluster ID mismatch",
    };
    let endpoints = peer.map(|peer| peer.peer_urls.as_slice()).unwrap_or_default();
    match told.answer {
        Ok(told_hash) => log::warn!(
            text,
            "local-member-id" => own,
            "local-member-revision" => hash.hash_revision,
            "local-member-compact-revision" => hash.compact_revision,
            "local-member-hash" => hash.hash,
            "remote-peer-id" => format!("{:x}", told.id),
            "remote-peer-endpoints" => endpoints,
            "remote-peer-revision" => told_hash.revision,
            "remote-peer-compact-revision" => told_hash.hash.compact_revision,
            "remote-peer-hash" => told_hash.hash.hash,
        ),
        Err(_) => log::warn!(
            text,
            "local-member-id" => own,
            "local-member-revision" => hash.hash_revision,
            "local-member-compact-revision" => hash.compact_revision,
            "local-member-hash" => hash.hash,
            "remote-peer-id" => format!("{:x}", told.id),
            "remote-peer-endpoints" => endpoints,
        ),
    }
}

//! `v3electionpb.Election`: the first place of a name's queue leads, and its value is what it proclaims.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use wire::etcdserverpb::ResponseHeader;
use wire::mvccpb::KeyValue;
use wire::mvccpb::event::EventType;
use wire::v3electionpb as pb;
use wire::{ApiError, Status};

use super::answer;
use super::kv::undecodable;
use super::queue::{self, Place, Queue, Turn, session, told};
use super::task::{Answered, By};

/// `Election.Campaign`: waits to be elected. The candidacy is given up if the client is gone before it is told.
pub(super) async fn campaign(message: &Bytes, by: &By) -> Result<Answered<Place>, Status> {
    let request = pb::CampaignRequest::decode(&message[..]).map_err(|error| undecodable(&error))?;
    be_elected(request, by).await.map_err(told)
}

async fn be_elected(request: pb::CampaignRequest, by: &By) -> Result<Answered<Place>, Status> {
    let session = session(by, request.lease).await?;
    let lease = session.lease;
    let queue = Queue::of(by, &request.name);
    let mut entered = queue.enter(session, request.value.clone()).await?;
    if entered.found.is_some_and(|value| value != request.value) {
        let place = &entered.place;
        let txn = queue::put_created(&place.key, place.created, request.value, lease);
        if !queue::txn(by, txn).await?.succeeded {
            return Err(ApiError::ElectionNotLeader.into());
        }
    }
    // etcd does not look whether a candidate that has waited is still one.
    if queue.wait_turn(&mut entered.place).await? == Turn::Lost {
        return Err(ApiError::ElectionNotLeader.into());
    }
    let place = entered.place;
    let leader = pb::LeaderKey { name: request.name, key: place.key.clone(), rev: place.created, lease };
    let response = pb::CampaignResponse { header: Some(entered.header), leader: Some(leader) };
    Ok(Answered::new(&response, Some(place)))
}

/// `Election.Proclaim`: gives the leader another value.
pub(super) async fn proclaim(message: &Bytes, by: &By) -> Result<Answered<Place>, Status> {
    let request = pb::ProclaimRequest::decode(&message[..]).map_err(|error| undecodable(&error))?;
    let leader = request.leader.ok_or(ApiError::MissingLeaderKey)?;
    let lease = session(by, leader.lease).await.map_err(told)?.lease;
    let txn = queue::put_created(&leader.key, leader.rev, request.value, lease);
    let answer = queue::txn(by, txn).await.map_err(told)?;
    if !answer.succeeded {
        return Err(ApiError::ElectionNotLeader.into());
    }
    Ok(Answered::new(&pb::ProclaimResponse { header: answer.header }, None))
}

/// `Election.Resign`: ends a leadership or a candidacy; one that is over already is no fault.
pub(super) async fn resign(message: &Bytes, by: &By) -> Result<Answered<Place>, Status> {
    let request = pb::ResignRequest::decode(&message[..]).map_err(|error| undecodable(&error))?;
    let leader = request.leader.ok_or(ApiError::MissingLeaderKey)?;
    let txn = queue::delete_created(&leader.key, leader.rev);
    let answer = queue::txn(by, txn).await.map_err(told)?;
    Ok(Answered::new(&pb::ResignResponse { header: answer.header }, None))
}

/// `Election.Leader`: who leads now.
pub(super) async fn leader(message: &Bytes, by: &By) -> Result<Answered<Place>, Status> {
    let request = pb::LeaderRequest::decode(&message[..]).map_err(|error| undecodable(&error))?;
    match Queue::of(by, &request.name).leader().await.map_err(told)? {
        (header, Some(leader)) => Ok(Answered::new(&said(header, leader), None)),
        (_, None) => Err(ApiError::ElectionNoLeader.into()),
    }
}

fn said(header: ResponseHeader, leader: KeyValue) -> pb::LeaderResponse {
    pb::LeaderResponse { header: Some(header), kv: Some(leader) }
}

/// `Election.Observe`: each leader and what it proclaims, one after the other; not each that led for a moment, but always
/// the newest.
pub(super) struct Observer {
    by: By,
    queue: Queue,
    state: Observing,
    ready: VecDeque<pb::LeaderResponse>,
}

enum Observing {
    /// Whoever leads is to be asked for.
    Unknown,
    /// Nobody leads; the first candidate will.
    Candidates(queue::Watch),
    /// The leader's key is watched.
    Leader(queue::Watch),
}

impl Observer {
    /// Observes the election that a `LeaderRequest` names.
    pub(super) fn new(message: &Bytes, by: &By) -> Result<Observer, Status> {
        let request = pb::LeaderRequest::decode(&message[..]).map_err(|error| undecodable(&error))?;
        let queue = Queue::of(by, &request.name);
        Ok(Observer { by: by.clone(), queue, state: Observing::Unknown, ready: VecDeque::new() })
    }

    /// The next messages with their prefixes.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Status> {
        while self.ready.is_empty() {
            match &mut self.state {
                Observing::Unknown => self.ask().await.map_err(told)?,
                Observing::Candidates(watch) => {
                    let responses = watch.next().await;
                    self.see_candidate(responses).map_err(told)?;
                }
                Observing::Leader(watch) => {
                    let told = watch.next().await;
                    self.see_leader(told);
                }
            }
        }
        let mut messages = Vec::new();
        self.ready.drain(..).for_each(|response| answer::push(&response, &mut messages));
        Ok(messages)
    }

    async fn ask(&mut self) -> Result<(), Status> {
        match self.queue.leader().await? {
            (header, Some(leader)) => self.follow(header, leader)?,
            (header, None) => self.state = Observing::Candidates(self.queue.watch_puts(header.revision)?),
        }
        Ok(())
    }

    /// Shows a leader as it was at the header's revision, and watches what comes after.
    fn follow(&mut self, header: ResponseHeader, leader: KeyValue) -> Result<(), Status> {
        let watch = queue::Watch::of_key(&self.by, leader.key.clone(), header.revision)?;
        self.state = Observing::Leader(watch);
        self.ready.push_back(said(header, leader));
        Ok(())
    }

    fn see_candidate(&mut self, told: Vec<wire::etcdserverpb::WatchResponse>) -> Result<(), Status> {
        for response in told {
            if response.canceled {
                // What was watched for is compacted, so somebody may lead.
                self.state = Observing::Unknown;
                return Ok(());
            }
            let header = response.header.unwrap_or_default();
            if let Some(leader) = response.events.into_iter().find_map(|event| event.kv) {
                return self.follow(ResponseHeader { revision: leader.mod_revision, ..header }, leader);
            }
        }
        Ok(())
    }

    fn see_leader(&mut self, told: Vec<wire::etcdserverpb::WatchResponse>) {
        for response in told {
            let header = response.header.unwrap_or_default();
            for event in response.events {
                match (event.r#type(), event.kv) {
                    (EventType::Put, Some(leader)) => self.ready.push_back(said(header, leader)),
                    _ => return self.state = Observing::Unknown,
                }
            }
            if response.canceled {
                return self.state = Observing::Unknown;
            }
        }
    }
}

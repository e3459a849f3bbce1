//! A client that watches everything, and goes on at another member where it has heard the last when its own is gone: it
//! must hear of every change once, in order, and of all changes of one revision together (rule 13).

use prost::Message as _;
use store::watch::{Answerer, Hub, HubLimits, StreamId};
use wire::etcdserverpb::{WatchCreateRequest, WatchResponse};
use wire::mvccpb::event::EventType;

use super::world::World;

/// The client.
#[derive(Default)]
pub struct WatchClient {
    /// The first revision that it has not heard of.
    next: i64,
    at: Option<Connected>,
    /// Events that it was told of.
    pub events: u64,
}

struct Connected {
    host: usize,
    run: u64,
    hub: Hub,
    stream: StreamId,
}

impl World {
    /// Whether every watching client has heard of everything.
    pub(super) fn watches_are_level(&self) -> bool {
        let last = self.checker.revision();
        self.watches.iter().all(|client| client.next > last || last == 1)
    }

    /// Every watching client hears what there is to hear.
    pub(super) fn hear_watches(&mut self) {
        for place in 0..self.watches.len() {
            let mut client = std::mem::take(&mut self.watches[place]);
            self.hear_watch(&mut client);
            self.watches[place] = client;
        }
    }

    fn hear_watch(&mut self, client: &mut WatchClient) {
        // Who was removed, and does not know, hears nothing any more.
        let is_gone = |at: &mut Connected| {
            let host = &self.hosts[at.host];
            host.member.is_none() || host.run != at.run || host.is_removed
        };
        client.at.take_if(|at| is_gone(at));
        if client.at.is_none() || self.random.one_in(50) {
            let Some(host) = self.serving_host().filter(|host| !self.hosts[*host].is_removed) else { return };
            self.connect(client, host);
        }
        let Some(Connected { host, hub, stream, .. }) = &mut client.at else { return };
        let Some((running, _)) = &self.hosts[*host].member else { return };
        let reader = &running.parts.reader;
        for _ in 0..100 {
            let more = hub.pump();
            let Some(job) = hub.next_job() else { if more { continue } else { break } };
            hub.finish(job.run(reader));
        }
        hub.check();
        let responses = decode(&hub.take(*stream));
        for response in responses {
            self.heard(client, &response);
        }
    }

    /// Begins at a member where the client has heard the last; a client that begins takes what comes.
    fn connect(&mut self, client: &mut WatchClient, host: usize) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let parts = &running.parts;
        let id = parts.identity;
        let answerer = Answerer { cluster_id: id.cluster_id, member_id: id.member_id, raft_term: 1 };
        let mut hub = Hub::new(parts.reader.clone(), parts.tail.clone(), answerer, HubLimits::DEFAULT);
        let stream = hub.open();
        // What is compacted it will never hear of. A member that has gone over to a snapshot lacks deletions at exactly
        // that revision too.
        client.next = client.next.max(2).max(parts.reader.compacted() + 1);
        let everything = WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: client.next,
            ..Default::default()
        };
        hub.create(stream, &everything);
        client.at = Some(Connected { host, run: self.hosts[host].run, hub, stream });
    }

    fn heard(&mut self, client: &mut WatchClient, response: &WatchResponse) {
        if response.canceled {
            // What it wanted was compacted meanwhile, or a read has failed: it goes on elsewhere.
            client.at = None;
            return;
        }
        let mut events = response.events.iter().peekable();
        while let Some(first) = events.peek() {
            let revision = first.kv.as_ref().map_or(0, |pair| pair.mod_revision);
            assert_eq!(revision, client.next, "a watch heard of another revision next");
            let (mut puts, mut deleted) = (Vec::new(), Vec::new());
            let is_of = |event: &wire::mvccpb::Event| {
                event.kv.as_ref().is_some_and(|pair| pair.mod_revision == revision)
            };
            while let Some(event) = events.next_if(|event| is_of(event)) {
                let Some(pair) = &event.kv else { continue };
                match event.r#type() {
                    EventType::Put => puts.push(pair.clone()),
                    EventType::Delete => deleted.push(pair.key.clone()),
                }
                client.events += 1;
            }
            puts.sort_by(|a, b| a.key.cmp(&b.key));
            deleted.sort();
            let expected = self.checker.changes(revision);
            assert_eq!((puts, deleted), expected, "what a watch heard of revision {revision}");
            client.next = revision + 1;
        }
    }
}

fn decode(mut bytes: &[u8]) -> Vec<WatchResponse> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[1..5].try_into().expect("a frame's head")) as usize;
        responses.push(WatchResponse::decode(&bytes[5..5 + length]).expect("a response"));
        bytes = &bytes[5 + length..];
    }
    responses
}

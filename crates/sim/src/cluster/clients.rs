//! What clients ask for, and what they are told.

use node::lease::Renewal;
use node::{Change, Input, NewMember, RequestId, Situation, Submission};
use prost::Message as _;
use raft::Time;

use super::host::{Host, Purpose, peer_urls};
use super::world::World;
use crate::checker::Fate;
use crate::member::proposal;
use crate::workload;

impl World {
    /// A host whose member serves clients.
    pub(super) fn serving_host(&mut self) -> Option<usize> {
        let host = self.random.below(self.hosts.len() as u64) as usize;
        self.serves(host).then_some(host)
    }

    pub(super) fn serves(&self, host: usize) -> bool {
        let Host { member, stopped_until, .. } = &self.hosts[host];
        *stopped_until <= self.now && member.as_ref().is_some_and(|(running, _)| running.is_ready)
    }

    pub(super) fn client(&mut self) {
        let Some(host) = self.serving_host() else { return };
        match self.random.below(100) {
            0..60 => self.submit(host),
            60..80 => self.read(host),
            80..97 => self.renew(),
            _ => self.reconfigure(host),
        }
    }

    pub(super) fn submit(&mut self, host: usize) {
        let seen = self.checker.seen_revision();
        let Some((running, lane)) = &mut self.hosts[host].member else { return };
        let mut batch = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..=self.random.below(3) {
            let id = lane.next();
            let (request, grows) = workload::request(&mut self.random, id.0, seen);
            self.checker.submitted(id.0);
            ids.push(id.0);
            batch.push(proposal(id, request.encode_to_vec(), grows));
        }
        running.submit(batch);
        self.hosts[host].open.extend(&ids);
        self.trace(format_args!("host {host}: submit {ids:x?}"));
        self.schedule(host);
    }

    pub(super) fn read(&mut self, host: usize) {
        let seen_before = self.checker.seen_index();
        self.ask(host, Purpose::Read { seen_before });
    }

    /// Asks whoever takes itself for the leader.
    pub(super) fn renew(&mut self) {
        let lease = workload::lease(&mut self.random);
        let asked_at = self.now;
        for host in 0..self.hosts.len() {
            let leads = self.hosts[host]
                .member
                .as_ref()
                .is_some_and(|(running, _)| running.parts.consensus.status().role == raft::Role::Leader);
            if leads && self.serves(host) {
                self.ask(host, Purpose::Renew { lease, asked_at });
            }
        }
    }

    pub(super) fn ask(&mut self, host: usize, purpose: Purpose) {
        let Some((running, lane)) = &mut self.hosts[host].member else { return };
        let context = lane.next();
        running.submit(vec![Submission::ReadIndex { context }]);
        self.hosts[host].reads.insert(context.0, (purpose, None));
        self.schedule(host);
    }

    /// Asks for a change of membership, if the member that is asked sees nothing against it.
    pub(super) fn reconfigure(&mut self, host: usize) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let membership = running.parts.reader.membership();
        let connected_since = |id: u64| {
            let other = self.hosts.iter().find(|other| other.id == id)?;
            let is_there = other.member.is_some()
                && !self.network.is_cut(host, other.place)
                && !self.network.is_cut(other.place, host);
            is_there.then_some(Time(0))
        };
        let situation = Situation {
            membership: &membership,
            own: self.hosts[host].id,
            strict: true,
            now: Time(10_000_000),
            connected_since: &connected_since,
        };
        let members: Vec<(u64, bool)> =
            membership.members().map(|member| (member.id, member.is_learner)).collect();
        let Some((any, _)) = members.get(self.random.below(members.len() as u64) as usize).copied() else {
            return;
        };
        let mut promotes = None;
        let change = match self.random.below(4) {
            0 => {
                let Some(place) = self.hosts.iter().position(|host| !host.is_member) else { return };
                let is_learner = self.random.one_in(2);
                if situation.may_add(is_learner).is_err() {
                    return;
                }
                let peer_urls = peer_urls(place);
                let id = node::added_member_id(&peer_urls, self.now as i64);
                Change::Add { member: NewMember { id, peer_urls, is_learner } }
            }
            1 => {
                // The last one of two may wait for ever for the one that is gone.
                let voters = members.iter().filter(|(_, is_learner)| !is_learner).count();
                if situation.may_remove(any).is_err() || voters < 3 {
                    return;
                }
                Change::Remove { id: any }
            }
            2 => {
                let Some((id, _)) = members.iter().find(|(_, is_learner)| *is_learner).copied() else {
                    return;
                };
                promotes = Some(node::Promotion { member: id, may: situation.may_promote() });
                Change::Promote { id }
            }
            _ => {
                let to = self.hosts.iter().find(|host| host.id == any && situation.may_lead(any).is_ok());
                if let Some(to) = to.map(|host| host.id)
                    && let Some((running, _)) = &mut self.hosts[host].member
                {
                    running.inputs.push_back(Input::TransferLeader(to));
                    self.trace(format_args!("host {host}: let {to:x} lead"));
                    self.schedule(host);
                }
                return;
            }
        };
        let Some((running, lane)) = &mut self.hosts[host].member else { return };
        let id = lane.next();
        running.submit(vec![Submission::Reconfigure { id, data: change.encode(id).into(), promotes }]);
        self.hosts[host].changes.insert(id.0);
        self.trace(format_args!("host {host}: change {:x}: {change:?}", id.0));
        self.schedule(host);
    }

    pub(super) fn answered(
        &mut self,
        host: usize,
        id: RequestId,
        result: &Result<store::Answer, wire::Status>,
    ) {
        if self.hosts[host].changes.remove(&id.0) {
            let is_done = result.is_ok();
            return self.trace(format_args!("host {host}: change {:x} done: {is_done}", id.0));
        }
        if !self.hosts[host].open.remove(&id.0) {
            // Its caller was told before that it may happen.
            let fate = self.checker.requests.get(&id.0);
            return assert_eq!(fate, Some(&Fate::Unknown), "an answer to {:x}", id.0);
        }
        let leads = self.hosts[host]
            .member
            .as_ref()
            .is_some_and(|(running, _)| running.parts.consensus.status().role == raft::Role::Leader);
        self.report.forwarded += u64::from(result.is_ok() && !leads);
        self.trace(format_args!("host {host}: answer {:x} {}", id.0, result.is_ok()));
        self.checker.answered(id.0, result);
    }

    pub(super) fn lost(&mut self, host: usize, lost: &node::LostProposals) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let ids = running.parts.ids;
        let Host { open, changes, .. } = &mut self.hosts[host];
        let is_lost = |id: &u64| lost.covers(&ids, RequestId(*id));
        let gone: Vec<u64> = open.iter().chain(&*changes).copied().filter(is_lost).collect();
        open.retain(|id| !is_lost(id));
        changes.retain(|id| !is_lost(id));
        for id in gone {
            self.trace(format_args!("host {host}: lost {id:x}"));
            self.report.lost += 1;
            self.checker.requests.insert(id, Fate::Unknown);
        }
    }

    pub(super) fn serve_reads(&mut self, host: usize) {
        let Host { reads, applied_index, member, .. } = &mut self.hosts[host];
        let Some((running, _)) = member else { return };
        let applied = *applied_index;
        let is_due = |index: &Option<u64>| index.is_some_and(|index| index <= applied);
        let due: Vec<u64> =
            reads.iter().filter(|(_, (_, index))| is_due(index)).map(|(context, _)| *context).collect();
        let due: Vec<Purpose> =
            due.iter().filter_map(|context| reads.remove(context)).map(|(purpose, _)| purpose).collect();
        let (reader, lessor) = (running.parts.reader.clone(), running.parts.lessor.clone());
        for purpose in due {
            match purpose {
                Purpose::Read { seen_before } => {
                    assert!(
                        applied >= seen_before,
                        "host {host}: a read at {applied} after {seen_before} was seen"
                    );
                    let same = self.checker.shows(&reader, applied);
                    assert!(same || self.hosts[host].is_faulty(), "a read failed on a healthy disk");
                    self.checker.seen(applied);
                    self.report.reads += 1;
                }
                Purpose::Renew { lease, asked_at } => {
                    let local = self.hosts[host].local(self.now);
                    // Another member may lead by now; a lease may be gone.
                    if let Renewal::Renewed { .. } = lessor.lock().renew(local, lease) {
                        self.leases.renewed(lease, asked_at);
                    }
                }
            }
        }
    }
}

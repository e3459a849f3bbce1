//! Snapshots on their way from one member to another (rule 17).

use node::Input;
use raft::Message;

use super::world::{Event, World};
use crate::checker::Fate;

impl World {
    pub(super) fn snapshot_wanted(&mut self, host: usize, to: u64) {
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        let cut = running.parts.applier.cut();
        running.inputs.push_back(Input::SnapshotReady { to, snapshot: cut.message() });
        self.hosts[host].cuts.insert(to, cut);
    }

    pub(super) fn send_snapshot(&mut self, from: usize, message: Message) {
        let cut = self.hosts[from].cuts.remove(&message.to.0).expect("what is sent is pinned");
        let plan = match cut.plan() {
            Ok(plan) => plan,
            Err(error) => {
                assert!(self.hosts[from].is_faulty(), "plan a snapshot: {error}");
                return self.snapshot_reported(from, &message, false);
            }
        };
        let (length, mut bytes) = (plan.file_len(), Vec::new());
        let written = cut.write(plan, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        if let Err(error) = written {
            assert!(self.hosts[from].is_faulty(), "write a snapshot: {error}");
            return self.snapshot_reported(from, &message, false);
        }
        assert_eq!(bytes.len() as u64, length, "the length of a snapshot");
        let to = self.hosts.iter().position(|host| host.is_member && host.id == message.to.0);
        let arrival = to.map(|to| (to, self.network.send(from, to, true, &mut self.random)));
        let Some((host, arrivals)) = arrival.filter(|(_, arrivals)| !arrivals.is_empty()) else {
            return self.snapshot_reported(from, &message, false);
        };
        let is_whole = self.is_calm || !self.random.one_in(6);
        if !is_whole {
            bytes.truncate(self.random.below(length) as usize);
        }
        self.trace(format_args!("host {from}: sends a snapshot of {length} bytes to host {host}"));
        self.plan(arrivals[0] * 10, Event::Snapshot { host, from, message, bytes, is_whole });
    }

    pub(super) fn snapshot_reported(&mut self, host: usize, message: &Message, ok: bool) {
        if let Some((running, _)) = &mut self.hosts[host].member {
            let (to, sent) = (message.to.0, message.sent_snapshot());
            running.inputs.push_back(Input::SnapshotReported { to, sent, ok });
            self.schedule(host);
        }
    }

    pub(super) fn receive_snapshot(
        &mut self,
        host: usize,
        from: usize,
        message: Message,
        (bytes, is_whole): (Vec<u8>, bool),
    ) {
        let is_running = self.hosts[host].member.is_some() && self.hosts[host].stopped_until <= self.now;
        if !is_running || self.network.is_cut(from, host) {
            return self.snapshot_reported(from, &message, false);
        }
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        let receiver = running.parts.snapshot_receiver.clone();
        let raft::Body::Snapshot { snapshot } = &message.body else { panic!("a snapshot's message") };
        let received = receiver.begin(Some(bytes.len() as u64)).and_then(|mut incoming| {
            bytes.chunks(700).try_for_each(|piece| incoming.write(piece))?;
            receiver.finish(incoming, snapshot, self.random.draw())
        });
        let ok = received.is_ok();
        let index = snapshot.index;
        self.trace(format_args!("host {host}: received a snapshot of {index} from host {from}: {ok}"));
        match received {
            Ok(()) => {
                assert!(is_whole, "a snapshot that is not whole was taken");
                let Some((running, _)) = &mut self.hosts[host].member else { return };
                running.inputs.push_back(Input::Messages(vec![message.clone()]));
                self.schedule(host);
            }
            Err(node::ReceiveError::Refused(reason)) => {
                assert!(!is_whole || self.hosts[host].is_faulty(), "a snapshot was refused: {reason}");
            }
            Err(node::ReceiveError::Busy) => {}
            Err(node::ReceiveError::NoRoom) => assert!(self.hosts[host].is_full, "there was room"),
            Err(node::ReceiveError::Failed(error)) => {
                // A file that is too short is read beyond its end.
                assert!(!is_whole || self.hosts[host].is_faulty(), "a snapshot failed: {error}");
                if self.hosts[host].is_faulty() {
                    self.crash(host);
                }
            }
        }
        self.snapshot_reported(from, &message, ok);
    }

    /// The log names a leader's snapshot: the member goes over to it.
    pub(super) fn go_over(&mut self, host: usize) {
        self.report.restored += 1;
        self.trace(format_args!("host {host}: goes over to a snapshot"));
        self.hosts[host].stop();
        for id in std::mem::take(&mut self.hosts[host].open) {
            self.checker.requests.insert(id, Fate::Unknown);
        }
        self.start(host);
    }
}

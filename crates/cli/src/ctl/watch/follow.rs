//! Watches whose answers are printed, and whose commands are run, each in its order and beside the others.

use std::collections::{BTreeMap, VecDeque};

use client::{Client, Error, WatchKey, Watched, Watcher};
use tokio::task::JoinSet;
use wire::etcdserverpb::{WatchCreateRequest, WatchResponse};
use wire::mvccpb::Event;
use wire::mvccpb::event::EventType;

use super::super::child::{self, Unsuccessful};
use super::super::session::call_failed;
use crate::app::{Failure, World, exit};
use crate::gotext::quote;
use crate::print::Printer;

/// How many answers wait for the command of one watch; then none are taken from the server.
const WAITING_MAX: usize = 16;

pub(super) struct Followers {
    watcher: Watcher,
    printer: Printer,
    followers: BTreeMap<WatchKey, Follower>,
    /// The commands that run, at most one a watch.
    running: JoinSet<(WatchKey, Result<(), Unsuccessful>)>,
}

#[derive(Default)]
struct Follower {
    command: Vec<Vec<u8>>,
    made: bool,
    /// Answers that wait for the commands of the one before.
    waiting: VecDeque<Watched>,
    /// The variables of the commands that are still to be run for the answer that was printed last.
    runs: VecDeque<Vec<(&'static str, Vec<u8>)>>,
    busy: bool,
    over: bool,
}

impl Followers {
    pub(super) fn new(client: Client, printer: Printer) -> Self {
        Followers {
            watcher: client.watcher(true),
            printer,
            followers: BTreeMap::new(),
            running: JoinSet::new(),
        }
    }

    /// Adds a watch; the command is run for each of its events, unless it is empty.
    pub(super) fn add(
        &mut self,
        request: WatchCreateRequest,
        command: Vec<Vec<u8>>,
    ) -> Result<WatchKey, Failure> {
        let watch = self.watcher.watch(request).map_err(call_failed)?;
        self.followers.insert(watch, Follower { command, ..Follower::default() });
        Ok(watch)
    }

    pub(super) fn request_progress(&mut self) {
        self.watcher.request_progress();
    }

    /// Whether the server has made the watch, or refused to.
    pub(super) fn is_made(&self, watch: WatchKey) -> bool {
        self.followers.get(&watch).is_none_or(|follower| follower.made)
    }

    /// Whether there is nothing to follow.
    pub(super) fn is_idle(&self) -> bool {
        self.followers.is_empty()
    }

    /// Waits for an answer or the end of a command, and does what is to be done then. False when every watch is over.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`exit::ERROR`] for a command that fails, and what fails in printing.
    pub(super) async fn step(&mut self, world: &mut World<'_>) -> Result<bool, Failure> {
        let room = self.followers.values().all(|follower| follower.waiting.len() < WAITING_MAX);
        let watch = tokio::select! {
            Some(watched) = self.watcher.next(), if room => {
                let watch = watched.watch;
                if let Some(follower) = self.followers.get_mut(&watch) {
                    follower.made = true;
                    follower.over |= watched.end.is_some();
                    // etcdctl does not hear of it.
                    if !watched.response.created || watched.end.is_some() {
                        follower.waiting.push_back(watched);
                    }
                }
                watch
            }
            Some(ended) = self.running.join_next(), if !self.running.is_empty() => {
                let (watch, ended) = ended.map_err(|error| Failure::new(exit::ERROR, error))?;
                if let Some(follower) = self.followers.get_mut(&watch) {
                    ended.map_err(|reason| command_failed(&follower.command, &reason))?;
                    follower.busy = false;
                }
                watch
            }
            else => return Ok(false),
        };
        self.advance(watch, world)?;
        Ok(!self.is_idle())
    }

    /// Prints, or starts a command, until there is nothing to do or a command runs.
    fn advance(&mut self, watch: WatchKey, world: &mut World<'_>) -> Result<(), Failure> {
        let Some(follower) = self.followers.get_mut(&watch) else { return Ok(()) };
        while !follower.busy {
            if let Some(variables) = follower.runs.pop_front() {
                let command = follower.command.clone();
                self.running.spawn(async move { (watch, child::run(&command, variables).await) });
                follower.busy = true;
            } else if let Some(Watched { response, end, .. }) = follower.waiting.pop_front() {
                print(&self.printer, &response, end.as_ref(), world)?;
                if !follower.command.is_empty() {
                    follower.runs = response.events.iter().map(|event| variables(&response, event)).collect();
                }
            } else {
                break;
            }
        }
        if follower.over && !follower.busy {
            self.followers.remove(&watch);
        }
        Ok(())
    }
}

fn print(
    printer: &Printer,
    response: &WatchResponse,
    end: Option<&Error>,
    world: &mut World<'_>,
) -> Result<(), Failure> {
    if let Some(reason) = end {
        writeln!(world.err, "watch was canceled ({reason})")?;
        world.err.flush()?;
    } else if response.events.is_empty() {
        let revision = response.header.map_or(0, |header| header.revision);
        writeln!(world.out, "progress notify: {revision}")?;
    }
    // What was printed before this fails, as with a format that is not supported, stays.
    let printed = printer.watch(world.out, response);
    world.out.flush()?;
    printed
}

fn variables(response: &WatchResponse, event: &Event) -> Vec<(&'static str, Vec<u8>)> {
    let revision = response.header.map_or(0, |header| header.revision);
    let kv = event.kv.clone().unwrap_or_default();
    let kind = match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    };
    vec![
        ("ETCD_WATCH_REVISION", revision.to_string().into_bytes()),
        ("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes()).into_bytes()),
        ("ETCD_WATCH_KEY", quote(&kv.key).into_bytes()),
        ("ETCD_WATCH_VALUE", quote(&kv.value).into_bytes()),
    ]
}

fn command_failed(command: &[Vec<u8>], reason: &Unsuccessful) -> Failure {
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    let message = format!("command [{}] error ({reason})\n", words.join(" "));
    Failure { code: exit::ERROR, message }
}

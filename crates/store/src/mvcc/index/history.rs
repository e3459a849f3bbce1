//! The older versions of one key.

use std::collections::VecDeque;

use super::Version;
use crate::record::{Location, Revision};

/// Most versions in one run: 20 KiB, the most that is moved when a version comes or goes.
pub(super) const RUN_MAX: usize = 512;

/// An older version, without its lease, which almost none has.
#[derive(Clone, Copy, Debug)]
struct Older {
    mod_revision: i64,
    create_revision: i64,
    version: i64,
    location: Location,
    sub: u32,
    length: u32,
}

/// Versions, oldest first. At most an eighth of its room is unused.
#[derive(Debug, Default)]
pub(super) struct Run {
    versions: Vec<Older>,
    /// The lease of each, if any has one. Boxed, since 16 bytes a key count.
    #[expect(clippy::box_collection, reason = "see above")]
    leases: Option<Box<Vec<i64>>>,
}

/// All older versions of a key, oldest first; at least one.
#[derive(Debug)]
pub(super) enum History {
    Short(Run),
    /// Runs, none of them empty, at least two: a key that is put for ever copies no megabytes when it grows, and
    /// none when its oldest versions go. Boxed, since a queue is larger than a run and its tag.
    #[expect(clippy::box_collection, reason = "see above")]
    Long(Box<VecDeque<Run>>),
}

impl History {
    pub(super) fn new(version: &Version) -> Self {
        let mut run = Run::default();
        run.push(version);
        History::Short(run)
    }

    /// Adds a version newer than all.
    pub(super) fn push(&mut self, version: &Version) {
        let last = match self {
            History::Short(run) => run,
            History::Long(runs) => runs.back_mut().expect("it has runs"),
        };
        if last.versions.len() < RUN_MAX {
            return last.push(version);
        }
        let mut next = Run::default();
        next.push(version);
        match self {
            History::Short(run) => {
                *self = History::Long(Box::new(VecDeque::from([std::mem::take(run), next])));
            }
            History::Long(runs) => runs.push_back(next),
        }
    }

    /// The newest version at or below `at`.
    pub(super) fn at(&self, at: i64) -> Option<Version> {
        match self {
            History::Short(run) => run.at(at),
            History::Long(runs) => {
                let above = runs.partition_point(|run| run.versions[0].mod_revision <= at);
                runs[above.checked_sub(1)?].at(at)
            }
        }
    }

    /// The oldest version, and the `mod_revision` of the one behind it.
    pub(super) fn front(&self) -> (Version, Option<i64>) {
        let (first, second) = match self {
            History::Short(run) => (run, run.versions.get(1)),
            History::Long(runs) => (&runs[0], runs[0].versions.get(1).or(Some(&runs[1].versions[0]))),
        };
        (first.get(0), second.map(|version| version.mod_revision))
    }

    /// How many of the oldest versions nobody at or above `horizon` sees, up to `max`. `newest` is the
    /// `mod_revision` of the key's newest version.
    pub(super) fn dead(&self, horizon: i64, newest: i64, max: usize) -> usize {
        let mut versions = self.runs().flat_map(|run| &run.versions).peekable();
        let mut count = 0;
        while let Some(version) = versions.next().filter(|_| count < max) {
            let next = versions.peek().map_or(newest, |next| next.mod_revision);
            let is_dead_tombstone = version.version == 0 && version.mod_revision < horizon;
            if next > horizon && !is_dead_tombstone {
                break;
            }
            count += 1;
        }
        count
    }

    /// Drops the oldest `count` versions. False if that were all.
    pub(super) fn drop_front(&mut self, count: usize, mut dropped: impl FnMut(&Version)) -> bool {
        let runs = match self {
            History::Short(run) => {
                run.drop_front(count, &mut dropped);
                return !run.versions.is_empty();
            }
            History::Long(runs) => runs,
        };
        let mut left = count;
        while let Some(first) = runs.front_mut().filter(|_| left > 0) {
            let here = left.min(first.versions.len());
            first.drop_front(here, &mut dropped);
            left -= here;
            if first.versions.is_empty() {
                runs.pop_front();
            }
        }
        if runs.len() == 1 {
            *self = History::Short(std::mem::take(&mut runs[0]));
            return true;
        }
        !runs.is_empty()
    }

    /// Whether a version is there.
    pub(super) fn has(&self, revision: Revision) -> bool {
        let run = match self {
            History::Short(run) => run,
            History::Long(runs) => {
                let above = runs.partition_point(|run| run.versions[0].revision() <= revision);
                let Some(place) = above.checked_sub(1) else { return false };
                &runs[place]
            }
        };
        run.versions.binary_search_by_key(&revision, Older::revision).is_ok()
    }

    /// Gives a version another location, if it is there.
    pub(super) fn relocate(&mut self, revision: Revision, to: Location) -> bool {
        let run = match self {
            History::Short(run) => run,
            History::Long(runs) => {
                let above = runs.partition_point(|run| run.versions[0].revision() <= revision);
                let Some(place) = above.checked_sub(1) else { return false };
                &mut runs[place]
            }
        };
        let Ok(place) = run.versions.binary_search_by_key(&revision, Older::revision) else { return false };
        run.versions[place].location = to;
        true
    }

    /// All, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Version> {
        self.runs().flat_map(|run| (0..run.versions.len()).map(|place| run.get(place)))
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        let (short, long) = match self {
            History::Short(run) => (Some(run), None),
            History::Long(runs) => (None, Some(runs.iter())),
        };
        short.into_iter().chain(long.into_iter().flatten())
    }

    /// Panics if an invariant does not hold.
    pub(super) fn check(&self) {
        if let History::Long(runs) = self {
            assert!(runs.len() >= 2, "{} runs", runs.len());
        }
        for run in self.runs() {
            let (len, room) = (run.versions.len(), run.versions.capacity());
            assert!((1..=RUN_MAX).contains(&len), "a run of {len}");
            assert!(room <= len + 1 + len.max(8) / 4, "{len} versions in room for {room}");
            if let Some(leases) = &run.leases {
                assert_eq!(leases.len(), len, "each has a lease or none");
            }
        }
    }
}

impl Run {
    fn get(&self, place: usize) -> Version {
        let older = &self.versions[place];
        Version {
            mod_revision: older.mod_revision,
            create_revision: older.create_revision,
            version: older.version,
            lease: self.leases.as_ref().map_or(0, |leases| leases[place]),
            location: older.location,
            sub: older.sub,
            length: older.length,
        }
    }

    fn at(&self, at: i64) -> Option<Version> {
        let above = self.versions.partition_point(|version| version.mod_revision <= at);
        above.checked_sub(1).map(|place| self.get(place))
    }

    fn push(&mut self, version: &Version) {
        let len = self.versions.len();
        if version.lease != 0 && self.leases.is_none() {
            self.leases = Some(Box::new(vec![0; len]));
        }
        if let Some(leases) = &mut self.leases {
            leases.push(version.lease);
        }
        if len == self.versions.capacity() {
            self.versions.reserve_exact(1 + len / 8);
        }
        self.versions.push(Older {
            mod_revision: version.mod_revision,
            create_revision: version.create_revision,
            version: version.version,
            location: version.location,
            sub: version.sub,
            length: version.length,
        });
    }

    fn drop_front(&mut self, count: usize, dropped: &mut impl FnMut(&Version)) {
        (0..count).for_each(|place| dropped(&self.get(place)));
        self.versions.drain(..count);
        let room = self.versions.len() + self.versions.len() / 8;
        if self.versions.capacity() > room + 1 {
            self.versions.shrink_to(room);
        }
        if let Some(leases) = &mut self.leases {
            leases.drain(..count);
            leases.shrink_to_fit();
            if leases.iter().all(|lease| *lease == 0) {
                self.leases = None;
            }
        }
    }
}

impl Older {
    fn revision(&self) -> Revision {
        Revision { main: self.mod_revision, sub: i64::from(self.sub) }
    }
}

const _: () = assert!(size_of::<Older>() == 40);
const _: () = assert!(size_of::<History>() == 32);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn version(n: i64, leased: bool) -> Version {
        Version {
            // Two in each revision.
            mod_revision: n / 2,
            create_revision: 1,
            version: n % 7,
            lease: if leased { n } else { 0 },
            location: Location(n as u64),
            sub: (n % 2) as u32,
            length: 1,
        }
    }

    fn dead(versions: &[Version], horizon: i64, newest: i64, max: usize) -> usize {
        let is_dead = |place: usize| {
            let next = versions.get(place + 1).map_or(newest, |next| next.mod_revision);
            let here = &versions[place];
            next <= horizon || (here.is_tombstone() && here.mod_revision < horizon)
        };
        (0..versions.len().min(max)).take_while(|place| is_dead(*place)).count()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// Pushes and drops around the length of a run.
        #[test]
        fn a_history_is_a_list(steps in vec((0usize..900, 0usize..900, prop::bool::weighted(0.1), 0i64..20), 1..12)) {
            let mut next = 1;
            let mut all = vec![version(0, false)];
            let mut history = History::new(&all[0]);
            for (pushed, gone, leased, back) in steps {
                for _ in 0..pushed {
                    all.push(version(next, leased && next % 3 == 0));
                    history.push(&version(next, leased && next % 3 == 0));
                    next += 1;
                }
                history.check();
                assert!(history.iter().eq(all.iter().copied()));
                let second = all.get(1).map(|second| second.mod_revision);
                assert_eq!(history.front(), (all[0], second));
                for at in (all[0].mod_revision - 1..=next / 2 + 1).step_by(5) {
                    let want = all.iter().rev().find(|version| version.mod_revision <= at);
                    assert_eq!(history.at(at), want.copied(), "at {at}");
                }
                let (horizon, newest) = (all[all.len() - 1].mod_revision - back, next / 2 + 1);
                assert_eq!(history.dead(horizon, newest, gone), dead(&all, horizon, newest, gone));
                let place = pushed % all.len();
                let (revision, from) = (all[place].revision(), all[place].location);
                let missing = Revision { sub: 2, ..revision };
                assert!(!history.has(missing) && !history.relocate(missing, from));
                assert!(history.has(revision));
                assert!(history.relocate(revision, Location(from.0 + 100_000)));
                all[place].location.0 += 100_000;
                let gone = gone.min(all.len() - 1);
                let mut dropped = Vec::new();
                assert!(history.drop_front(gone, |version| dropped.push(*version)));
                assert_eq!(dropped, all.drain(..gone).collect::<Vec<_>>());
                history.check();
            }
            assert!(!history.drop_front(all.len(), |_| {}), "all are gone");
        }
    }

    #[test]
    fn the_second_version_may_be_in_the_second_run() {
        let mut history = History::new(&version(0, false));
        (1..=RUN_MAX as i64 + 1).for_each(|n| history.push(&version(n, false)));
        assert!(history.drop_front(RUN_MAX - 1, |_| {}));
        let (first, second) = (version(RUN_MAX as i64 - 1, false), version(RUN_MAX as i64, false));
        assert_eq!(history.front(), (first, Some(second.mod_revision)));
        assert_ne!(first.mod_revision, second.mod_revision);
        history.check();
    }
}

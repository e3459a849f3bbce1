//! What lies between members: messages are late, lost, repeated and overtaken, and ways are cut, in one direction or both.

use std::collections::BTreeSet;

use crate::random::Random;

/// The state of all ways.
#[derive(Debug, Default)]
pub struct Network {
    /// Ways from one host to another on which nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    /// Of a thousand messages, so many are lost,
    lost: u64,
    /// so many arrive twice,
    doubled: u64,
    /// and so many take long.
    late: u64,
}

impl Network {
    /// When a message that is sent now arrives, in microseconds from now, each time that it does. `once`: at most once, as
    /// a transport delivers all of them; for most that is more than they need.
    pub fn send(&self, from: usize, to: usize, once: bool, random: &mut Random) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || random.below(1000) < self.lost {
            return Vec::new();
        }
        let times = 1 + u64::from(!once && random.below(1000) < self.doubled);
        let mut arrivals = Vec::new();
        for _ in 0..times {
            let spread_us = if random.below(1000) < self.late { 300_000 } else { 2_000 };
            arrivals.push(100 + random.below(spread_us));
        }
        arrivals
    }

    /// Whether nothing that one sends reaches the other.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Another weather.
    pub fn change(&mut self, random: &mut Random) {
        self.lost = if random.one_in(2) { random.below(200) } else { 0 };
        self.doubled = if random.one_in(2) { random.below(100) } else { 0 };
        self.late = if random.one_in(2) { random.below(200) } else { 0 };
    }

    /// Cuts hosts into two halves; in one direction only, perhaps.
    pub fn part(&mut self, hosts: usize, random: &mut Random) {
        let side: Vec<bool> = (0..hosts).map(|_| random.one_in(2)).collect();
        let both = random.one_in(2);
        for from in 0..hosts {
            for to in 0..hosts {
                if side[from] != side[to] && (both || side[from]) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Cuts a single way.
    pub fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.cut.insert((from, to));
        }
    }

    /// Mends every cut.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// Everything is well.
    pub fn calm(&mut self) {
        *self = Network::default();
    }
}

//! What all roles of a user together let it do: intervals of keys, for reading and for writing (etcd:
//! range_perm_cache.go, pkg/adt).

use std::sync::OnceLock;

use wire::authpb::Permission;
use wire::authpb::permission::Type;

use super::tree::Tree;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// What a user may read and write.
#[derive(Debug)]
pub(super) struct Rights {
    read: Intervals,
    write: Intervals,
}

impl Rights {
    pub(super) fn new<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Rights {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let interval = Interval::new(&permission.key, &permission.range_end);
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(interval),
                Ok(Type::Write) => write.push(interval),
                Ok(Type::Readwrite) => {
                    read.push(interval.clone());
                    write.push(interval);
                }
                // Kept, and lets nobody do anything, as in etcd: whoever refused it would differ from members of Go's.
                Err(_) => {}
            }
        }
        Rights { read: Intervals::new(read), write: Intervals::new(write) }
    }

    /// Whether one key, or, if there is a range's end, a whole range is among what may be read or written.
    pub(super) fn cover(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        let intervals = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        if range_end.is_empty() { intervals.have(key) } else { intervals.cover(key, range_end) }
    }
}

/// From a key up to another one, which does not belong to it; `None` is behind all keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) from: Vec<u8>,
    pub(super) to: Option<Vec<u8>>,
}

/// Whether an end is behind another, `None` being behind all.
pub(super) fn is_above(end: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (end, other) {
        (None, None) | (Some(_), None) => false,
        (None, Some(_)) => true,
        (Some(end), Some(other)) => end > other,
    }
}

/// A range's end of one zero byte is none.
fn open_ended(range_end: &[u8]) -> Option<&[u8]> {
    (range_end != [0]).then_some(range_end)
}

impl Interval {
    fn new(key: &[u8], range_end: &[u8]) -> Interval {
        let to = match range_end {
            [] => Some([key, &[0]].concat()),
            _ => open_ended(range_end).map(<[u8]>::to_vec),
        };
        Interval { from: key.to_vec(), to }
    }

    pub(super) fn to(&self) -> Option<&[u8]> {
        self.to.as_deref()
    }
}

/// Intervals that may overlap.
#[derive(Debug)]
struct Intervals {
    /// In the order of roles and permissions.
    all: Vec<Interval>,
    /// Made when it is asked for first.
    tree: OnceLock<Tree>,
    /// The same keys in order, in intervals that neither overlap nor touch.
    merged: Vec<Interval>,
}

impl Intervals {
    fn new(all: Vec<Interval>) -> Intervals {
        let mut merged: Vec<Interval> = Vec::new();
        // One that ends before it begins has no key.
        let mut sorted: Vec<&Interval> =
            all.iter().filter(|interval| is_above(interval.to(), Some(&interval.from))).collect();
        sorted.sort_by(|a, b| a.from.cmp(&b.from));
        for interval in sorted {
            match merged.last_mut() {
                Some(last) if !is_above(Some(&interval.from), last.to()) => {
                    if is_above(interval.to(), last.to()) {
                        last.to = interval.to.clone();
                    }
                }
                _ => merged.push(interval.clone()),
            }
        }
        Intervals { all, tree: OnceLock::new(), merged }
    }

    /// Whether a key is in any of them.
    fn have(&self, key: &[u8]) -> bool {
        let behind = self.merged.partition_point(|interval| &interval.from[..] <= key);
        behind > 0 && is_above(self.merged[behind - 1].to(), Some(key))
    }

    /// Whether all keys of a range are in them.
    fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let to = open_ended(range_end);
        if !is_above(to, Some(key)) {
            return self.cover_nothing(key, to);
        }
        let behind = self.merged.partition_point(|interval| &interval.from[..] <= key);
        behind > 0 && !is_above(to, self.merged[behind - 1].to())
    }

    /// What etcd says of a range that ends where it begins, or before, and has no key: the same everywhere, since a
    /// transaction with such an op in it is refused as a whole or not at all.
    fn cover_nothing(&self, key: &[u8], to: Option<&[u8]>) -> bool {
        self.tree.get_or_init(|| Tree::new(&self.all)).cover(&self.all, key, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(list: &[(&str, &str)]) -> Intervals {
        Intervals::new(list.iter().map(|(key, end)| Interval::new(key.as_bytes(), end.as_bytes())).collect())
    }

    fn covers(intervals: &Intervals, key: &str, end: &str) -> bool {
        match end {
            "" => intervals.have(key.as_bytes()),
            _ => intervals.cover(key.as_bytes(), end.as_bytes()),
        }
    }

    #[test]
    fn ranges_and_points_together() {
        let some = intervals(&[("c", "f"), ("a", "c"), ("f", ""), ("m", "p"), ("n", "o"), ("x", "\0")]);
        for (key, end) in [
            ("a", "f"),
            ("a", "f\0"),
            ("b", "e"),
            ("f", ""),
            ("f", "f\0"),
            ("m", "p"),
            ("n", "p"),
            ("x", "\0"),
            ("y", "\0"),
            ("y", "z"),
            ("zz", ""),
            ("a", ""),
        ] {
            assert!(covers(&some, key, end), "{key} to {end:?}");
        }
        for (key, end) in [
            ("a", "g"),
            ("A", "b"),
            ("f", "f\0\0"),
            ("f\0", ""),
            ("p", ""),
            ("l", "p"),
            ("a", "\0"),
            ("m", "\0"),
            ("e", "n"),
        ] {
            assert!(!covers(&some, key, end), "{key} to {end:?}");
        }
        let all = intervals(&[("\0", "\0")]);
        assert!(covers(&all, "\0", "\0") && covers(&all, "k", "") && covers(&all, "k", "l"));
        assert!(!covers(&intervals(&[]), "k", ""));
    }

    /// Recorded from the tree of etcd 3.7.1. The first five depend on what stands above what in it.
    #[test]
    fn a_range_without_a_key() {
        for (list, (key, end), expected) in [
            (&[(">", "C"), ("`", ""), ("8", "<"), ("I", "K")][..], ("I", "4"), false),
            (&[("3", "5"), ("1", "5"), ("4", "8"), ("1", "2"), ("1", "6")][..], ("6", ","), false),
            (&[("5", "7"), (")", ","), ("/", "3"), (":", "<"), ("5", "9")][..], ("6", "*"), false),
            (&[(".", "4"), (".", "1"), (")", "")][..], ("2", "-"), false),
            (&[("H", "M"), ("w", "}"), ("-", "2"), ("?", ""), ("_", "c")][..], ("a", "E"), false),
            (&[("4", "9"), ("1", "7"), ("5", "7"), ("6", "8"), ("4", "9")][..], ("4", "3"), true),
            (&[("*", "0"), ("0", "5"), (")", "/")][..], ("0", "+"), true),
            (&[("0", "1"), ("4", "7"), ("7", ":"), (".", "1"), ("<", "@")][..], ("4", "("), true),
            (&[("0", "2"), ("0", "3"), (",", "0"), ("0", "1"), (")", ",")][..], ("4", ","), false),
            (&[("f", "h"), ("+", ","), ("V", "Z"), ("j", "l"), ("U", "V")][..], ("c", "."), false),
        ] {
            assert_eq!(covers(&intervals(list), key, end), expected, "{key} to {end} in {list:?}");
        }
    }
}

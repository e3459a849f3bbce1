//! Names for the numbers of consensus, so that a term is never taken for an index.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

number!(
    /// A member's identity, never reused. Zero is etcd's "nobody": we say `None`, and never take a message from 0.
    /// Shown in hexadecimal, as etcd does.
    NodeId,
    "{:x}"
);
number!(
    /// An election's number. Zero is before the first election. Remote terms at or above 2^63 are refused.
    Term,
    "{}"
);
number!(
    /// An entry's place in the log. The first entry has index 1; zero is "before the log". Remote indexes at or above
    /// 2^63 are refused.
    Index,
    "{}"
);
number!(
    /// The number of one [`Effect::Persist`](crate::Effect::Persist), counted from 1 in each run; a later one is
    /// written later.
    PersistSeq,
    "{}"
);

/// Index and term of one entry, which together name its content in the whole cluster.
pub type Position = (Index, Term);

/// Remote numbers at or above this are absurd, and refused: below it, no sum of ours overflows.
const ABSURD: u64 = 1 << 63;

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(crate) fn is_absurd(self) -> bool {
        self.0 >= ABSURD
    }
}

impl Index {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; zero stays zero.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The index `count` entries on.
    #[must_use]
    pub fn plus(self, count: usize) -> Self {
        Self(self.0 + count as u64)
    }

    pub(crate) fn is_absurd(self) -> bool {
        self.0 >= ABSURD
    }
}

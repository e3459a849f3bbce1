//! How much a store has done, in etcd's way of counting.

/// What applied requests came to in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ops {
    /// Ranges that were read, those of compares and of pairs before a change too.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Deletes of a range; of a revoked lease, one a key.
    pub deletes: u64,
    /// What had more than one of all these.
    pub txns: u64,
    /// Keys and values of puts, bytes.
    pub put_bytes: u64,
}

impl Ops {
    /// A request has done `more`, all of it at once, after it compared `compares` keys or ranges.
    pub(crate) fn add(&mut self, more: Ops, compares: u64) {
        let all = more.ranges + more.puts + more.deletes;
        self.ranges += more.ranges + compares;
        self.puts += more.puts;
        self.deletes += more.deletes;
        self.txns += u64::from(all > 1) + u64::from(compares > 1);
        self.put_bytes += more.put_bytes;
    }
}

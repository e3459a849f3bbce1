//! The versions that a member reports.

/// The etcd version whose contract this is; what Status and `/version` report.
pub const ETCD: &str = "3.7.1";

/// The cluster version that a new cluster starts with: the minor version of [`ETCD`].
pub const CLUSTER: &str = "3.7.0";

/// The lowest cluster version that a member of this version can join (`etcdcluster` minimum in `/version` of peers).
pub const CLUSTER_MIN: &str = "3.0.0";

/// Our own version, shown beside etcd's.
pub const QUORATE: &str = env!("CARGO_PKG_VERSION");

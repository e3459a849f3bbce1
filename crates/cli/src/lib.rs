//! The commands of etcdctl and etcdutl.

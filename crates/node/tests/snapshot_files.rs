//! What real etcds wrote into their `.snap` files, down to the members: read, and written again byte for byte.

use std::path::Path;
use std::sync::Arc;

use disk::snap::{Folder, Name, Snapshot};
use disk::{Fs, MemFs};
use store::Membership;

fn read(bytes: &[u8], index: u64) -> (Snapshot, Membership) {
    let fs = MemFs::new();
    let dir = Path::new("/snap");
    fs.create_dir_all(dir, 0o700).expect("a folder");
    let name = Name { term: 2, index };
    fs.put(dir.join(name.to_string()), bytes).expect("a file");
    let snapshot = Folder::new(Arc::new(fs), dir).read(name).expect("a file").expect("a whole one");
    let membership = Membership::from_v2_store(&snapshot.data).expect("a v2 store");
    (snapshot, membership)
}

#[test]
fn the_members_in_etcds_files_are_written_as_etcd_writes_them() {
    let files: [(&[u8], u64, &str); 4] = [
        (include_bytes!("../../disk/tests/golden/snap/etcd-3.4.23.snap"), 12, "3.4.0"),
        (include_bytes!("../../disk/tests/golden/snap/etcd-3.6.9.snap"), 12, "3.6.0"),
        (include_bytes!("../../disk/tests/golden/snap/etcd-3.7.1.snap"), 12, "3.7.0"),
        (include_bytes!("../../disk/tests/golden/snap/etcd-3.7.1-members.snap"), 30, "3.7.0"),
    ];
    for (bytes, index, version) in files {
        let (snapshot, membership) = read(bytes, index);
        assert_eq!(membership.cluster_version(), Some(version));
        let voters: Vec<u64> =
            membership.members().filter(|member| !member.is_learner).map(|member| member.id).collect();
        assert_eq!(voters, snapshot.conf_state.voters);
        let data = membership.to_v2_store();
        assert_eq!(String::from_utf8_lossy(&data), String::from_utf8_lossy(&snapshot.data), "{version}");
        assert_eq!(Snapshot { data, ..snapshot }.encode(), bytes);
    }
    let (snapshot, membership) = read(files[3].0, 30);
    let learner = membership.members().find(|member| member.is_learner).expect("a learner");
    assert_eq!(snapshot.conf_state.learners, [learner.id]);
    assert_eq!((learner.peer_urls[0].as_str(), learner.name.as_str()), ("http://[::1]:2380", ""));
    assert!(membership.is_removed(0x0bb3_b7cd_19b8_c2ed));
}

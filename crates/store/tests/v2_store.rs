//! The membership as the JSON of etcd's v2 store: what Go's etcd writes is read, and written again byte for byte.
//!
//! The files in `golden` are what etcd 3.7.1's own packages `membership` and `v2store` make of the same members, filed in
//! ascending order of id.

use store::{Membership, V2StoreError, fuzz_v2_store};

/// Two members, one a learner that has not started, names and URLs with everything that Go escapes; two removed ones.
const MEMBERS: &[u8] = include_bytes!("golden/v2-store-members.json");
/// Nobody, and no version.
const EMPTY: &[u8] = include_bytes!("golden/v2-store-empty.json");

fn read(json: &[u8]) -> Membership {
    Membership::from_v2_store(json).expect("a v2 store")
}

fn written(membership: &Membership) -> String {
    String::from_utf8(membership.to_v2_store()).expect("text")
}

#[test]
fn etcds_bytes_are_read_and_written_again() {
    let membership = read(MEMBERS);
    let members: Vec<_> = membership.members().cloned().collect();
    assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [0xff, 0x1000]);
    assert_eq!(members[0].name, "<a>&\"q\" \\ \u{7}\u{8}\u{c}\n\t\u{2028}é\u{7f}");
    assert_eq!(members[0].peer_urls, ["http://10.0.0.1:2380"]);
    assert_eq!(members[0].client_urls, ["http://c:1?x=<&>"]);
    assert!(!members[0].is_learner && members[1].is_learner);
    assert_eq!((members[1].peer_urls.len(), members[1].name.as_str()), (2, ""));
    assert!(membership.is_removed(0x11) && membership.is_removed(0x12c) && !membership.is_removed(0xff));
    assert_eq!(membership.cluster_version(), Some("3.7.0"));
    assert_eq!(written(&membership), String::from_utf8_lossy(MEMBERS));
}

#[test]
fn nobody() {
    assert_eq!(read(EMPTY), Membership::default());
    assert_eq!(written(&Membership::default()), String::from_utf8_lossy(EMPTY));
}

/// More events than the history has places. etcd's answer is 255,563 bytes; this is their CRC-32C.
#[test]
fn a_history_that_has_come_round() {
    let removed: Vec<String> = (1..=1005).map(|n| format!("\"{:x}\":{{}}", n * 7)).collect();
    let json = format!(
        r#"{{"Root":{{"Children":{{"0":{{"Children":{{
            "members":{{"Children":{{
                "9":{{"Children":{{"raftAttributes":{{"Value":"{{\"peerURLs\":[\"http://a:1\"]}}"}},
                    "attributes":{{"Value":"{{\"clientURLs\":[\"http://a:2\"]}}"}}}}}},
                "ffffffffffffffff":{{"Children":{{"raftAttributes":{{"Value":"{{\"peerURLs\":null}}"}}}}}}}}}},
            "removed_members":{{"Children":{{{}}}}},
            "version":{{"Value":"3.6.0"}}}}}}}}}}}}"#,
        removed.join(",")
    );
    let bytes = read(json.as_bytes()).to_v2_store();
    assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), (255_563, 0x31b2_bc7e));
}

/// A v2 store of an etcd that still served v2 clients: their keys are passed over.
#[test]
fn keys_of_v2_clients_are_passed_over() {
    let deep = format!("{}{}", "{\"Children\":{\"a\":".repeat(500), "null".to_owned() + &"}}".repeat(500));
    let json = String::from_utf8_lossy(MEMBERS).replacen(
        r#""1":{"#,
        &format!(r#""2":{deep},"1":{{"Children":{{"k":{{"Value":"v"}}}},"#),
        1,
    );
    let json =
        json.replacen(r#""ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{}}"#, r#""TTL":1}"#, 1);
    assert_eq!(read(json.as_bytes()), read(MEMBERS));
}

#[test]
fn what_etcd_would_not_write_is_refused() {
    let text = String::from_utf8_lossy(MEMBERS);
    for (from, to, expected) in [
        ("{\"Root\"", "[\"Root\"", "no v2 store"),
        ("\"ff\":{", "\"0ff\":{", "a member \"0ff\""),
        ("\"12c\":{", "\"xy\":{", "a member \"xy\""),
        ("\"11\":{", "\"1000\":{", "member 1000: it is there and removed"),
        ("\"raftAttributes\":", "\"other\":", "unknown field `other`"),
        ("\"Value\":\"3.7.0\"", "\"Value\":\"3.7\"", "cluster version \"3.7\""),
        ("{\\\"name\\\":", "{\\\"name\\\"=", "member ff:"),
    ] {
        assert!(text.contains(from), "{from}");
        let error: V2StoreError =
            Membership::from_v2_store(text.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{from}: {error}");
    }
}

/// The fuzz target, fed with seeded inputs: etcd's bytes, with some of them changed.
#[test]
fn seeded_inputs() {
    // Without the empty places of the history, in which nothing can be found.
    let text = String::from_utf8_lossy(MEMBERS).replace("null,", "");
    assert!(fuzz_v2_store(MEMBERS) && fuzz_v2_store(EMPTY) && fuzz_v2_store(text.as_bytes()));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) as usize % bound
    };
    let mut read = 0;
    for _ in 0..20_000 {
        let mut input = text.clone().into_bytes();
        for _ in 0..=below(3) {
            let at = below(input.len() / 2);
            match below(4) {
                0 => input[at] = b"{}[]\"\\,:0af"[below(11)],
                1 => input[at] = below(256) as u8,
                2 => drop(input.remove(at)),
                _ => input.insert(at, b"{}[]\"\\,:0af"[below(11)]),
            }
        }
        read += usize::from(fuzz_v2_store(&input));
    }
    assert!(read > 1_000, "only {read} inputs were stores");
}

//! What etcd keeps in its file: every pair of real files decodes, and encodes to the same bytes.

use disk::boltfile::Reader;
use disk::boltfile::schema::{self, Downgrade, Member, RevisionKey, Version};
use disk::wal::ConfState;
use prost::Message as _;
use wire::authpb::permission::Type;
use wire::etcdserverpb::AlarmType;
use wire::mvccpb::KeyValue;

use crate::golden::{ETCD_3_6, ETCD_3_7, SNAPSHOT_3_7};
use crate::harness::open;
use crate::packed::unpack;

/// What the members said of themselves through etcdctl before they were stopped.
struct Known {
    packed: &'static [u8],
    version: Version,
    member: u64,
    learner: u64,
    removed: u64,
    leases: [i64; 2],
    urls: [&'static str; 2],
}

const KNOWN: [Known; 3] = [
    Known {
        packed: ETCD_3_6,
        version: Version { major: 3, minor: 6, patch: 0 },
        member: 0x04e2_3191_31e2_a3e4,
        learner: 0xb156_8b9b_6249_da37,
        removed: 0x8906_c827_d553_e330,
        leases: [0x23e4_a229_949d_9b43, 0x23e4_a229_949d_9b45],
        urls: ["http://127.0.0.1:23611", "http://127.0.0.1:23610"],
    },
    OF_3_7,
    Known { packed: SNAPSHOT_3_7, ..OF_3_7 },
];

const OF_3_7: Known = Known {
    packed: ETCD_3_7,
    version: Version { major: 3, minor: 7, patch: 0 },
    member: 0xb34c_f78e_ea25_dc16,
    learner: 0x6b9d_0fbf_483d_0426,
    removed: 0xd2ac_17fb_20bb_dc50,
    leases: [0x5c16_a229_94c0_6343, 0x5c16_a229_94c0_6345],
    urls: ["http://127.0.0.1:23621", "http://127.0.0.1:23620"],
};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs(reader: &Reader, bucket: &[u8]) -> Pairs {
    let mut pairs = Vec::new();
    let mut cursor = reader.bucket(bucket).unwrap().unwrap().cursor();
    while let Some(item) = cursor.next().unwrap() {
        pairs.push((item.key.to_vec(), item.value.unwrap().to_vec()));
    }
    pairs
}

fn own(pairs: &[(&[u8], &[u8])]) -> Pairs {
    pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

#[test]
fn all_buckets_are_there_and_no_other() {
    for Known { packed, .. } in KNOWN {
        let reader = open(&unpack(packed)).unwrap();
        let mut names = Vec::new();
        let mut cursor = reader.root().cursor();
        while let Some(item) = cursor.next().unwrap() {
            names.push(item.key.to_vec());
        }
        assert_eq!(names, schema::BUCKETS);
    }
}

#[test]
fn revisions() {
    for Known { packed, leases, .. } in KNOWN {
        let reader = open(&unpack(packed)).unwrap();
        let mut all = Vec::new();
        for (key, value) in pairs(&reader, schema::BUCKET_KEY) {
            let revision = RevisionKey::decode(&key).unwrap();
            assert_eq!(revision.encode(&mut [0; RevisionKey::LEN_MAX]), key);
            assert_eq!(revision.len(), key.len());
            let pair = KeyValue::decode(&value[..]).unwrap();
            assert_eq!(pair.encode_to_vec(), value);
            assert_eq!(revision.tombstone, pair.mod_revision == 0);
            all.push((revision, pair));
        }
        let at = |main, sub| &all.iter().find(|(at, _)| (at.main, at.sub) == (main, sub)).unwrap().1;
        let tombstones =
            all.iter().filter(|(revision, _)| revision.tombstone).map(|(at, _)| (at.main, at.sub));
        assert_eq!(tombstones.collect::<Vec<_>>(), [(0x42, 0), (0x43, 0), (0x44, 0), (0x45, 2)]);
        assert_eq!((&at(62, 0).key[..], &at(62, 0).value[..]), (&b"empty"[..], &b""[..]));
        assert_eq!((&at(63, 0).key[..], at(63, 0).value.len()), (&b"large"[..], 10_000));
        assert_eq!((at(64, 0).lease, at(65, 0).lease), (leases[0], leases[1]));
        assert_eq!((&at(69, 1).key[..], &at(69, 1).value[..]), (&b"t2"[..], &b"two"[..]));
        let newest = at(79, 0);
        assert_eq!((newest.create_revision, newest.version, &newest.value[..]), (2, 11, &b"again-10"[..]));
        assert_eq!(all.last().unwrap().0, RevisionKey { main: 79, sub: 0, tombstone: false });
    }
}

#[test]
fn meta() {
    for Known { packed, version, member, learner, .. } in KNOWN {
        let reader = open(&unpack(packed)).unwrap();
        let get = |key| reader.get(schema::BUCKET_META, key).unwrap().unwrap();
        let state = ConfState { voters: vec![member], learners: vec![learner], ..ConfState::default() };
        assert_eq!(schema::decode_conf_state(&get(schema::META_CONF_STATE)), Ok(state.clone()));
        assert_eq!(schema::decode_u64(&get(schema::META_CONSISTENT_INDEX)), Ok(112));
        assert_eq!(schema::decode_u64(&get(schema::META_TERM)), Ok(3));
        assert_eq!(Version::decode(&get(schema::META_STORAGE_VERSION)), Ok(version));
        assert_eq!(schema::decode_compact_revision(&get(schema::META_SCHEDULED_COMPACT)), Ok(40));
        assert_eq!(schema::decode_compact_revision(&get(schema::META_FINISHED_COMPACT)), Ok(40));

        let expected = own(&[
            (schema::META_CONF_STATE, &schema::encode_conf_state(&state)),
            (schema::META_CONSISTENT_INDEX, &schema::encode_u64(112)),
            (schema::META_FINISHED_COMPACT, &schema::encode_compact_revision(40)),
            (schema::META_SCHEDULED_COMPACT, &schema::encode_compact_revision(40)),
            (schema::META_STORAGE_VERSION, version.to_string().as_bytes()),
            (schema::META_TERM, &schema::encode_u64(3)),
        ]);
        assert_eq!(pairs(&reader, schema::BUCKET_META), expected);
    }
}

#[test]
fn cluster_and_members() {
    for Known { packed, version, member, learner, removed, urls, .. } in KNOWN {
        let reader = open(&unpack(packed)).unwrap();
        let none = Downgrade::default();
        let cluster = pairs(&reader, schema::BUCKET_CLUSTER);
        let expected = own(&[
            (schema::CLUSTER_VERSION, version.to_string().as_bytes()),
            (schema::CLUSTER_DOWNGRADE, &none.encode()),
        ]);
        assert_eq!(cluster, expected);
        assert_eq!(Version::decode(&cluster[0].1), Ok(version));
        assert_eq!(Downgrade::decode(&cluster[1].1), Ok(none));

        let text = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        let mut expected = [
            Member {
                id: member,
                peer_urls: text(&urls[..1]),
                name: "m".to_owned(),
                client_urls: text(&urls[1..]),
                is_learner: false,
            },
            Member {
                id: learner,
                peer_urls: text(&["http://127.0.0.1:2", "http://127.0.0.1:3"]),
                is_learner: true,
                ..Member::default()
            },
        ];
        // In the order of their texts.
        expected.sort_by_key(|member| schema::member_key(member.id));
        let members = pairs(&reader, schema::BUCKET_MEMBERS);
        assert_eq!(members.len(), 2);
        for ((key, value), expected) in members.iter().zip(&expected) {
            assert_eq!(schema::decode_member_key(key), Ok(expected.id));
            assert_eq!(schema::member_key(expected.id).as_bytes(), key);
            assert_eq!(Member::decode(value).as_ref(), Ok(expected));
            assert_eq!(expected.encode(), *value);
        }
        let expected = own(&[(schema::member_key(removed).as_bytes(), schema::MEMBER_REMOVED)]);
        assert_eq!(pairs(&reader, schema::BUCKET_MEMBERS_REMOVED), expected);
    }
}

#[test]
fn leases_and_alarms() {
    for Known { packed, member, leases, .. } in KNOWN {
        let reader = open(&unpack(packed)).unwrap();
        let found = pairs(&reader, schema::BUCKET_LEASE);
        assert_eq!(found.len(), 2);
        for (((key, value), id), ttl) in found.iter().zip(leases).zip([86_400, 3600]) {
            let lease = schema::decode_lease(key, value).unwrap();
            assert_eq!((lease.id, lease.ttl, lease.remaining_ttl), (id, ttl, 0));
            assert_eq!((&schema::lease_key(id)[..], lease.encode_to_vec()), (&key[..], value.clone()));
        }
        let [(key, value)] = &pairs(&reader, schema::BUCKET_ALARM)[..] else { panic!("one alarm") };
        let alarm = schema::decode_alarm(key).unwrap();
        assert_eq!((alarm.member_id, alarm.alarm()), (member, AlarmType::Nospace));
        assert_eq!((alarm.encode_to_vec(), &value[..]), (key.clone(), &b""[..]));
    }
}

#[test]
fn users_and_roles() {
    for Known { packed, .. } in KNOWN {
        let reader = open(&unpack(packed)).unwrap();
        let auth = pairs(&reader, schema::BUCKET_AUTH);
        let expected = own(&[
            (schema::AUTH_ENABLED, &schema::encode_auth_enabled(true)),
            (schema::AUTH_REVISION, &schema::encode_u64(8)),
        ]);
        assert_eq!(auth, expected);
        assert!(schema::decode_auth_enabled(&auth[0].1));

        let users = pairs(&reader, schema::BUCKET_AUTH_USERS);
        let decoded: Vec<_> =
            users.iter().map(|(key, value)| schema::decode_user(key, value).unwrap()).collect();
        for ((key, value), user) in users.iter().zip(&decoded) {
            assert_eq!((&user.name[..], user.encode_to_vec()), (&key[..], value.clone()));
        }
        assert_eq!(
            (&decoded[0].name[..], &decoded[0].roles[..]),
            (&b"alice"[..], &["reader".to_owned()][..])
        );
        assert!(decoded[0].options.unwrap().no_password && decoded[0].password.is_empty());
        assert_eq!((&decoded[1].name[..], &decoded[1].roles[..]), (&b"root"[..], &["root".to_owned()][..]));
        assert_eq!(decoded[1].password.len(), 60);

        let [.., (key, value)] = &pairs(&reader, schema::BUCKET_AUTH_ROLES)[..] else { panic!("a role") };
        let role = schema::decode_role(key, value).unwrap();
        assert_eq!(
            (&role.name[..], &key[..], role.encode_to_vec()),
            (&b"reader"[..], &b"reader"[..], value.clone())
        );
        let permissions: Vec<_> = role
            .key_permission
            .iter()
            .map(|one| (one.perm_type(), &one.key[..], &one.range_end[..]))
            .collect();
        assert_eq!(
            permissions,
            [(Type::Read, &b"key-"[..], &b"key."[..]), (Type::Readwrite, &b"t1"[..], &b""[..])]
        );
    }
}

/// What etcd would panic over, or could not have written.
#[test]
fn malformed() {
    let refused = [
        RevisionKey::decode(&[0; 16]).unwrap_err(),
        RevisionKey::decode(&[0; 17]).unwrap_err(),
        RevisionKey::decode(b"\xff\0\0\0\0\0\0\0_\0\0\0\0\0\0\0\0").unwrap_err(),
        RevisionKey::decode(b"\0\0\0\0\0\0\0\0_\xff\0\0\0\0\0\0\0").unwrap_err(),
        RevisionKey::decode(b"\0\0\0\0\0\0\0\0_\0\0\0\0\0\0\0\0u").unwrap_err(),
        RevisionKey::decode(b"\0\0\0\0\0\0\0\0_\0\0\0\0\0\0\0\0tt").unwrap_err(),
        schema::decode_u64(&[0; 7]).unwrap_err(),
        schema::decode_compact_revision(b"40").unwrap_err(),
        Version::decode(b"3.7").unwrap_err(),
        Version::decode(b"3.7.0.1").unwrap_err(),
        Version::decode(b"3.+7.0").unwrap_err(),
        Version::decode(b"").unwrap_err(),
        Version::decode(b"\xff").unwrap_err(),
        schema::decode_lease(&[1; 7], b"").unwrap_err(),
        schema::decode_lease(&[1; 8], b"\x08\x01").unwrap_err(),
        schema::decode_lease(&[1; 8], b"\xff").unwrap_err(),
        schema::decode_alarm(b"\xff").unwrap_err(),
        schema::decode_user(b"u", b"\xff").unwrap_err(),
        schema::decode_user(b"u", b"\x0a\x01v").unwrap_err(),
        schema::decode_role(b"r", b"\xff").unwrap_err(),
        schema::decode_role(b"r", b"").unwrap_err(),
        schema::decode_member_key(b"+1").unwrap_err(),
        schema::decode_member_key(b"").unwrap_err(),
        schema::decode_member_key(b"10000000000000000").unwrap_err(),
        Member::decode(br#"{"id":"1"}"#).unwrap_err(),
        Downgrade::decode(br#"{"target-version":"","enabled":true}"#).unwrap_err(),
        schema::decode_conf_state(b"{").unwrap_err(),
    ];
    assert!(refused.iter().all(|error| !error.what.is_empty()));
    assert_eq!(refused[14].to_string(), "lease: id 1 under the key 101010101010101");
    assert_eq!(refused[18].to_string(), r#"user: "v" under the key "u""#);
}

#[test]
fn go_writes_some_characters_escaped() {
    let member = Member { id: u64::MAX, name: "<&>\u{2028}\"é".to_owned(), ..Member::default() };
    let json = r#"{"id":18446744073709551615,"peerURLs":[],"name":"\u003c\u0026\u003e\u2028\"é"}"#;
    assert_eq!(String::from_utf8(member.encode()).unwrap(), json);
    assert_eq!(Member::decode(&member.encode()), Ok(member));
    // Go's nil.
    let member = Member::decode(br#"{"id":1,"peerURLs":null}"#).unwrap();
    assert_eq!(member, Member { id: 1, ..Member::default() });
    assert_eq!(Version::decode(b"3.7.0-rc.1"), Ok(Version { major: 3, minor: 7, patch: 0 }));
    assert!(!schema::decode_auth_enabled(b"") && !schema::decode_auth_enabled(&[0]));
}

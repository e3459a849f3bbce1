//! What a replicated request asks for, told from its bytes without decoding it.

use crate::encoding::Fields;

macro_rules! kinds {
    ($($name:ident = $number:literal,)*) => {
        /// A kind of request that members replicate, by etcd's name of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "they are the fields of InternalRaftRequest")]
        pub enum RequestKind {
            $($name,)*
            Unknown,
        }

        impl RequestKind {
            /// All of them, in the order of their numbers.
            pub const ALL: &[RequestKind] = &[$(RequestKind::$name,)* RequestKind::Unknown];

            /// etcd's name of it.
            pub fn name(self) -> &'static str {
                match self {
                    $(RequestKind::$name => stringify!($name),)*
                    RequestKind::Unknown => "Unknown",
                }
            }

            /// The kind whose field in `InternalRaftRequest` this is.
            fn of_field(number: u32) -> Option<RequestKind> {
                match number {
                    $($number => Some(RequestKind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    Range = 3,
    Put = 4,
    DeleteRange = 5,
    Txn = 6,
    Compaction = 7,
    LeaseGrant = 8,
    LeaseRevoke = 9,
    Alarm = 10,
    LeaseCheckpoint = 11,
    AuthEnable = 1000,
    AuthDisable = 1011,
    Authenticate = 1012,
    AuthStatus = 1013,
    AuthUserAdd = 1100,
    AuthUserDelete = 1101,
    AuthUserGet = 1102,
    AuthUserChangePassword = 1103,
    AuthUserGrantRole = 1104,
    AuthUserRevokeRole = 1105,
    AuthUserList = 1106,
    AuthRoleList = 1107,
    AuthRoleAdd = 1200,
    AuthRoleDelete = 1201,
    AuthRoleGet = 1202,
    AuthRoleGrantPermission = 1203,
    AuthRoleRevokePermission = 1204,
    ClusterVersionSet = 1300,
    ClusterMemberAttrSet = 1301,
    DowngradeInfoSet = 1302,
    DowngradeVersionTest = 9900,
}

impl RequestKind {
    /// The kind of an entry's data, an encoded `InternalRaftRequest`. What nobody can apply is `Unknown`.
    pub fn of(data: &[u8]) -> RequestKind {
        let mut fields = Fields::new(data);
        while let Ok(Some((number, _))) = fields.next() {
            if let Some(kind) = RequestKind::of_field(number) {
                return kind;
            }
        }
        RequestKind::Unknown
    }

    /// Its place in [`RequestKind::ALL`].
    pub fn number(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caller;
    use crate::admission;

    #[test]
    fn a_kind_is_told_by_its_field() {
        let put = wire::etcdserverpb::PutRequest { key: b"a".to_vec().into(), ..Default::default() };
        let put = prost::Message::encode_to_vec(&put);
        assert_eq!(RequestKind::of(&admission::encode_put(9, Caller::NOBODY, &put)), RequestKind::Put);
        let version = admission::encode_cluster_version_set(1, "3.7.0");
        assert_eq!(RequestKind::of(&version), RequestKind::ClusterVersionSet);
        assert_eq!(RequestKind::of(b""), RequestKind::Unknown);
        assert_eq!(RequestKind::of(&[0x22, 200]), RequestKind::Unknown, "cut short");
    }

    #[test]
    fn numbers_are_places() {
        for (place, kind) in RequestKind::ALL.iter().enumerate() {
            assert_eq!(kind.number(), place, "{}", kind.name());
        }
    }
}

//! Every error that reaches a client: its gRPC code and its exact text.
//!
//! Clients match on both, so they are part of the interface (`../shared/surface/errors.tsv` is the source). This
//! is the one table; nothing else in the project spells an error text of etcd's.

use std::borrow::Cow;
use std::fmt;

/// A gRPC status code, with its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// The code with this number; numbers that gRPC does not define are `Unknown`, as in gRPC's libraries.
    pub fn from_number(number: u32) -> Code {
        const ALL: [Code; 17] = [
            Code::Ok,
            Code::Canceled,
            Code::Unknown,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
            Code::Unauthenticated,
        ];
        ALL.get(number as usize).copied().unwrap_or(Code::Unknown)
    }

    /// The number on the wire, 0 to 16.
    pub fn number(self) -> u8 {
        self as u8
    }
}

macro_rules! table {
    ($($name:ident: $code:ident, $text:literal, $etcd:literal;)*) => {
        /// An error of etcd's API, by the name that etcd gives it (without `ErrGRPC`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the text is the documentation")]
        pub enum ApiError { $($name,)* }

        impl ApiError {
            /// Every error, in the order of the table.
            pub const ALL: &[ApiError] = &[$(ApiError::$name,)*];

            /// The gRPC code as it is on the wire (two differ from etcd's own table: see the tests).
            pub fn code(self) -> Code {
                match self { $(ApiError::$name => Code::$code,)* }
            }

            /// The exact text.
            pub fn text(self) -> &'static str {
                match self { $(ApiError::$name => $text,)* }
            }

            /// etcd's name of the error value; empty for texts that have no value of their own there.
            pub fn etcd_name(self) -> &'static str {
                match self { $(ApiError::$name => $etcd,)* }
            }
        }
    };
}

table! {
    EmptyKey: InvalidArgument, "etcdserver: key is not provided", "ErrGRPCEmptyKey";
    KeyNotFound: InvalidArgument, "etcdserver: key not found", "ErrGRPCKeyNotFound";
    ValueProvided: InvalidArgument, "etcdserver: value is provided", "ErrGRPCValueProvided";
    LeaseProvided: InvalidArgument, "etcdserver: lease is provided", "ErrGRPCLeaseProvided";
    TooManyOps: InvalidArgument, "etcdserver: too many operations in txn request", "ErrGRPCTooManyOps";
    DuplicateKey: InvalidArgument, "etcdserver: duplicate key given in txn request", "ErrGRPCDuplicateKey";
    InvalidClientApiVersion: InvalidArgument, "etcdserver: invalid client api version", "ErrGRPCInvalidClientAPIVersion";
    InvalidSortOption: InvalidArgument, "etcdserver: invalid sort option", "ErrGRPCInvalidSortOption";
    Compacted: OutOfRange, "etcdserver: mvcc: required revision has been compacted", "ErrGRPCCompacted";
    FutureRev: OutOfRange, "etcdserver: mvcc: required revision is a future revision", "ErrGRPCFutureRev";
    NoSpace: ResourceExhausted, "etcdserver: mvcc: database space exceeded", "ErrGRPCNoSpace";
    LeaseNotFound: NotFound, "etcdserver: requested lease not found", "ErrGRPCLeaseNotFound";
    LeaseExist: FailedPrecondition, "etcdserver: lease already exists", "ErrGRPCLeaseExist";
    LeaseTtlTooLarge: OutOfRange, "etcdserver: too large lease TTL", "ErrGRPCLeaseTTLTooLarge";
    WatchCanceled: Canceled, "etcdserver: watch canceled", "ErrGRPCWatchCanceled";
    MemberExist: FailedPrecondition, "etcdserver: member ID already exist", "ErrGRPCMemberExist";
    PeerUrlExist: FailedPrecondition, "etcdserver: Peer URLs already exists", "ErrGRPCPeerURLExist";
    MemberNotEnoughStarted: Unknown, "etcdserver: re-configuration failed due to not enough started members", "ErrGRPCMemberNotEnoughStarted";
    MemberBadUrls: InvalidArgument, "etcdserver: given member URLs are invalid", "ErrGRPCMemberBadURLs";
    MemberNotFound: NotFound, "etcdserver: member not found", "ErrGRPCMemberNotFound";
    MemberNotLearner: FailedPrecondition, "etcdserver: can only promote a learner member", "ErrGRPCMemberNotLearner";
    LearnerNotReady: FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader", "ErrGRPCLearnerNotReady";
    TooManyLearners: FailedPrecondition, "etcdserver: too many learner members in cluster", "ErrGRPCTooManyLearners";
    ClusterIdMismatch: FailedPrecondition, "etcdserver: cluster ID mismatch", "ErrGRPCClusterIDMismatch";
    RequestTooLarge: InvalidArgument, "etcdserver: request is too large", "ErrGRPCRequestTooLarge";
    TooManyRequests: Unknown, "etcdserver: too many requests", "ErrGRPCRequestTooManyRequests";
    RootUserNotExist: FailedPrecondition, "etcdserver: root user does not exist", "ErrGRPCRootUserNotExist";
    RootRoleNotExist: FailedPrecondition, "etcdserver: root user does not have root role", "ErrGRPCRootRoleNotExist";
    UserAlreadyExist: FailedPrecondition, "etcdserver: user name already exists", "ErrGRPCUserAlreadyExist";
    UserEmpty: InvalidArgument, "etcdserver: user name is empty", "ErrGRPCUserEmpty";
    UserNotFound: FailedPrecondition, "etcdserver: user name not found", "ErrGRPCUserNotFound";
    RoleAlreadyExist: FailedPrecondition, "etcdserver: role name already exists", "ErrGRPCRoleAlreadyExist";
    RoleNotFound: FailedPrecondition, "etcdserver: role name not found", "ErrGRPCRoleNotFound";
    RoleEmpty: InvalidArgument, "etcdserver: role name is empty", "ErrGRPCRoleEmpty";
    AuthFailed: InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", "ErrGRPCAuthFailed";
    PermissionNotGiven: InvalidArgument, "etcdserver: permission not given", "ErrGRPCPermissionNotGiven";
    PermissionDenied: PermissionDenied, "etcdserver: permission denied", "ErrGRPCPermissionDenied";
    RoleNotGranted: FailedPrecondition, "etcdserver: role is not granted to the user", "ErrGRPCRoleNotGranted";
    PermissionNotGranted: FailedPrecondition, "etcdserver: permission is not granted to the role", "ErrGRPCPermissionNotGranted";
    AuthNotEnabled: FailedPrecondition, "etcdserver: authentication is not enabled", "ErrGRPCAuthNotEnabled";
    InvalidAuthToken: Unauthenticated, "etcdserver: invalid auth token", "ErrGRPCInvalidAuthToken";
    InvalidAuthMgmt: InvalidArgument, "etcdserver: invalid auth management", "ErrGRPCInvalidAuthMgmt";
    AuthOldRevision: InvalidArgument, "etcdserver: revision of auth store is old", "ErrGRPCAuthOldRevision";
    NoLeader: Unavailable, "etcdserver: no leader", "ErrGRPCNoLeader";
    NotLeader: FailedPrecondition, "etcdserver: not leader", "ErrGRPCNotLeader";
    LeaderChanged: Unavailable, "etcdserver: leader changed", "ErrGRPCLeaderChanged";
    NotCapable: FailedPrecondition, "etcdserver: not capable", "ErrGRPCNotCapable";
    Stopped: Unavailable, "etcdserver: server stopped", "ErrGRPCStopped";
    Timeout: Unavailable, "etcdserver: request timed out", "ErrGRPCTimeout";
    TimeoutDueToLeaderFail: Unavailable, "etcdserver: request timed out, possibly due to previous leader failure", "ErrGRPCTimeoutDueToLeaderFail";
    TimeoutDueToConnectionLost: Unavailable, "etcdserver: request timed out, possibly due to connection lost", "ErrGRPCTimeoutDueToConnectionLost";
    TimeoutWaitAppliedIndex: Unavailable, "etcdserver: request timed out, waiting for the applied index took too long", "ErrGRPCTimeoutWaitAppliedIndex";
    Unhealthy: Unavailable, "etcdserver: unhealthy cluster", "ErrGRPCUnhealthy";
    Corrupt: DataLoss, "etcdserver: corrupt cluster", "ErrGRPCCorrupt";
    NotSupportedForLearner: FailedPrecondition, "etcdserver: rpc not supported for learner", "ErrGRPCNotSupportedForLearner";
    BadLeaderTransferee: FailedPrecondition, "etcdserver: bad leader transferee", "ErrGRPCBadLeaderTransferee";
    WrongDowngradeVersionFormat: InvalidArgument, "etcdserver: wrong downgrade target version format", "ErrGRPCWrongDowngradeVersionFormat";
    InvalidDowngradeTargetVersion: InvalidArgument, "etcdserver: invalid downgrade target version", "ErrGRPCInvalidDowngradeTargetVersion";
    ClusterVersionUnavailable: FailedPrecondition, "etcdserver: cluster version not found during downgrade", "ErrGRPCClusterVersionUnavailable";
    DowngradeInProcess: FailedPrecondition, "etcdserver: cluster has a downgrade job in progress", "ErrGRPCDowngradeInProcess";
    NoInflightDowngrade: FailedPrecondition, "etcdserver: no inflight downgrade job", "ErrGRPCNoInflightDowngrade";
    Canceled: Canceled, "etcdserver: request canceled", "ErrGRPCCanceled";
    DeadlineExceeded: DeadlineExceeded, "etcdserver: context deadline exceeded", "ErrGRPCDeadlineExceeded";
    NotPrimaryLessor: Unknown, "not a primary lessor", "";
    UnknownMethod: Unknown, "etcdserver: unknown method", "";
    TimeoutLeaderTransfer: Unknown, "etcdserver: request timed out, leader transfer took too long", "";
    NoPasswordUser: Unknown, "auth: authentication failed, password was given for no password user", "";
    PasswordTooLong: Unknown, "bcrypt: password length exceeds 72 bytes", "";
    MissingLeaderKey: Unknown, "\"leader\" field must be provided", "";
    ElectionNotLeader: Unknown, "election: not leader", "";
    ElectionNoLeader: Unknown, "election: no leader", "";
    SessionExpired: Unknown, "mutex: session is expired", "";
    ProposalDropped: Unknown, "raft proposal dropped", "";
    RangeStreamSort: Unimplemented, "RangeStream does not support custom sort orders", "";
    RangeStreamFilter: Unimplemented, "RangeStream does not support revision filters", "";
    RangeStreamProxy: Unimplemented, "RangeStream is not supported by the gRPC proxy", "";
    UnknownHealthService: NotFound, "unknown service", "";
    ContextDeadlineExceeded: DeadlineExceeded, "context deadline exceeded", "";
    ContextCanceled: Canceled, "context canceled", "";
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for ApiError {}

/// A gRPC status that is not `Ok`: what a call ends with when it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text, not yet percent-encoded.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status with a text of its own.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Status { code, message: message.into() }
    }

    /// gRPC's answer to a message whose length prefix exceeds the limit.
    pub fn message_too_large(bytes: u64, bytes_max: u64) -> Self {
        Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({bytes} vs. {bytes_max})"),
        )
    }

    /// gRPC's answer to a service that is not registered.
    pub fn unknown_service(service: &str) -> Self {
        Status::new(Code::Unimplemented, format!("unknown service {service}"))
    }

    /// gRPC's answer to a method that its service does not have.
    pub fn unknown_method(method: &str, service: &str) -> Self {
        Status::new(Code::Unimplemented, format!("unknown method {method} for service {service}"))
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Status { code: error.code(), message: Cow::Borrowed(error.text()) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

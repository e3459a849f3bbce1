//! `etcdserverpb.Auth`: logins, users, roles.
//!
//! All but the login only propose; who may ask for what is checked when it is applied. Passwords end here: only hashes go
//! on, and nothing of either is ever in the log.

use std::sync::Arc;

use prost::Message;
use store::{AuthRequest, admission};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use wire::{ApiError, RequestLimits, etcdserverpb as pb};

use super::member::MemberView;
use super::service::{admin, client_deadline, to_tonic, who};
use crate::auth::{Asker, Passwords};
use crate::lane::LaneHandle;
use crate::log;
use crate::stubs::etcdserverpb::auth_server::Auth;

/// Logs in, and proposes what is asked about users and roles.
pub struct AuthService {
    member: Arc<MemberView>,
    lane: LaneHandle,
    limits: RequestLimits,
}

/// A response whose header is filled in here.
trait Answered: Message + Default {
    fn header(&mut self) -> &mut Option<pb::ResponseHeader>;
}

macro_rules! answered {
    ($($response:ident),* $(,)?) => {
        $(impl Answered for pb::$response {
            fn header(&mut self) -> &mut Option<pb::ResponseHeader> {
                &mut self.header
            }
        })*
    };
}

answered!(
    AuthDisableResponse,
    AuthEnableResponse,
    AuthRoleAddResponse,
    AuthRoleDeleteResponse,
    AuthRoleGetResponse,
    AuthRoleGrantPermissionResponse,
    AuthRoleListResponse,
    AuthRoleRevokePermissionResponse,
    AuthStatusResponse,
    AuthUserAddResponse,
    AuthUserChangePasswordResponse,
    AuthUserDeleteResponse,
    AuthUserGetResponse,
    AuthUserGrantRoleResponse,
    AuthUserListResponse,
    AuthUserRevokeRoleResponse,
    AuthenticateResponse,
);

/// The service: calls of its own form, and those that are proposed as they come.
macro_rules! service {
    ({ $($own:tt)* } $($call:ident($kind:ident, $request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Auth for AuthService {
            $($own)*

            $(async fn $call(
                &self,
                request: Request<pb::$request>,
            ) -> Result<Response<pb::$response>, Status> {
                self.ask(request, AuthRequest::$kind).await
            })*
        }
    };
}

impl AuthService {
    /// `lane` proposes, and confirms reads.
    pub fn new(member: Arc<MemberView>, lane: LaneHandle, limits: RequestLimits) -> Self {
        AuthService { member, lane, limits }
    }

    /// Proposes what a call asks for, in its caller's name.
    async fn ask<T, R: Answered>(
        &self,
        request: Request<T>,
        kind: impl FnOnce(T) -> AuthRequest,
    ) -> Result<Response<R>, Status> {
        let (asker, deadline) = (who(&self.member, &request)?.asker().clone(), client_deadline(&request));
        let made = self.propose(kind(request.into_inner()), asker, deadline).await;
        made.map(Response::new).map_err(to_tonic)
    }

    async fn propose<R: Answered>(
        &self,
        request: AuthRequest,
        asker: Asker,
        deadline: Option<Instant>,
    ) -> Result<R, wire::Status> {
        // Of any id: no other is longer.
        admission::check_size(&request.clone().encode(u64::MAX, asker.caller()), &self.limits)?;
        let answer =
            self.lane.propose(deadline, move |id, _| (request.encode(id.0, asker.caller()), false)).await?;
        let mut response = R::decode(&answer.body[..])
            .map_err(|error| wire::Status::new(wire::Code::Internal, error.to_string()))?;
        *response.header() = Some(self.member.header(answer.revision));
        Ok(response)
    }

    /// Logs in: the password is compared first, and again if anything changes for users before the login is applied.
    async fn log_in(
        &self,
        login: pb::AuthenticateRequest,
        deadline: Option<Instant>,
    ) -> Result<pb::AuthenticateResponse, wire::Status> {
        let pb::AuthenticateRequest { name, password } = login;
        let password = Passwords::what_counts(password);
        self.lane.linearizable(deadline).await?;
        let access = &self.member.access;
        loop {
            let revision = self.check_password(&name, &password).await.inspect_err(|status| {
                if *status != ApiError::AuthNotEnabled.into() {
                    log::warn!(
                        "invalid authentication was requested",
                        "user" => name.as_str(),
                        "error" => status.message,
                    );
                }
            })?;
            let login = pb::InternalAuthenticateRequest {
                name: name.clone(),
                simple_token: access.token_prefix()?,
                ..Default::default()
            };
            let request = AuthRequest::Authenticate(login);
            let made: pb::AuthenticateResponse = self.propose(request, Asker::default(), deadline).await?;
            if self.member.reader.auth_revision() != Some(revision) {
                log::info!("revision when password checked became stale; retrying");
                continue;
            }
            let token = Arc::clone(access).issue(name, revision, made.token).await?;
            return Ok(pb::AuthenticateResponse { token, ..made });
        }
    }

    /// Compares a password; the auth revision as of which it is right.
    async fn check_password(&self, name: &str, password: &[u8]) -> Result<u64, wire::Status> {
        let auth = self.member.reader.auth();
        if !auth.is_enabled() {
            return Err(ApiError::AuthNotEnabled.into());
        }
        let user = auth.user(name).ok_or(ApiError::AuthFailed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(ApiError::NoPasswordUser.into());
        }
        let passwords = &self.member.access.passwords;
        if !passwords.matches(password.to_vec(), user.password.to_vec()).await? {
            log::info!("invalid password", "user-name" => name);
            return Err(ApiError::AuthFailed.into());
        }
        Ok(auth.revision())
    }

    /// What is replicated of a password. It is not hashed for those who may not set it, which costs them nothing and others
    /// much.
    async fn hashed<T>(&self, request: &Request<T>, password: String) -> Result<String, Status> {
        // As in etcd, whoever asks.
        Passwords::check_length(&password).map_err(to_tonic)?;
        if who(&self.member, request)?.check_admin().is_err() {
            // Whether they may this member could hear only now.
            self.lane.linearizable(client_deadline(request)).await.map_err(to_tonic)?;
            admin(&self.member, request)?;
        }
        self.member.access.passwords.hash(password).await.map_err(to_tonic)
    }
}

service! {
    {
        async fn authenticate(
            &self,
            request: Request<pb::AuthenticateRequest>,
        ) -> Result<Response<pb::AuthenticateResponse>, Status> {
            let deadline = client_deadline(&request);
            self.log_in(request.into_inner(), deadline).await.map(Response::new).map_err(to_tonic)
        }

        async fn user_add(
            &self,
            mut request: Request<pb::AuthUserAddRequest>,
        ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
            // As in etcd a hash that was given does not count here.
            let password = std::mem::take(&mut request.get_mut().password);
            request.get_mut().hashed_password =
                match request.get_ref().options.is_some_and(|options| options.no_password) {
                    true => String::new(),
                    false => self.hashed(&request, password).await?,
                };
            self.ask(request, AuthRequest::UserAdd).await
        }

        async fn user_change_password(
            &self,
            mut request: Request<pb::AuthUserChangePasswordRequest>,
        ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
            // But here it does, if there is no password.
            if !request.get_ref().password.is_empty() {
                let password = std::mem::take(&mut request.get_mut().password);
                request.get_mut().hashed_password = self.hashed(&request, password).await?;
            }
            self.ask(request, AuthRequest::UserChangePassword).await
        }
    }
    auth_enable(Enable, AuthEnableRequest) -> AuthEnableResponse;
    auth_disable(Disable, AuthDisableRequest) -> AuthDisableResponse;
    auth_status(Status, AuthStatusRequest) -> AuthStatusResponse;
    user_get(UserGet, AuthUserGetRequest) -> AuthUserGetResponse;
    user_list(UserList, AuthUserListRequest) -> AuthUserListResponse;
    user_delete(UserDelete, AuthUserDeleteRequest) -> AuthUserDeleteResponse;
    user_grant_role(UserGrantRole, AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
    user_revoke_role(UserRevokeRole, AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
    role_add(RoleAdd, AuthRoleAddRequest) -> AuthRoleAddResponse;
    role_get(RoleGet, AuthRoleGetRequest) -> AuthRoleGetResponse;
    role_list(RoleList, AuthRoleListRequest) -> AuthRoleListResponse;
    role_delete(RoleDelete, AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
    role_grant_permission(RoleGrantPermission, AuthRoleGrantPermissionRequest)
        -> AuthRoleGrantPermissionResponse;
    role_revoke_permission(RoleRevokePermission, AuthRoleRevokePermissionRequest)
        -> AuthRoleRevokePermissionResponse;
}

//! The calls of the service Auth.

use wire::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
};

use crate::stubs::auth_client::AuthClient;
use crate::{Channel, Client, Deadline, Error};

impl Client {
    /// Auth.Authenticate: a token for a user. The client does not take it over: that is [`Client::log_in`].
    pub async fn authenticate(
        &self,
        request: AuthenticateRequest,
        deadline: Deadline,
    ) -> Result<AuthenticateResponse, Error> {
        self.call_unidentified(request, deadline, |r| async move { self.auth().authenticate(r).await }).await
    }

    /// Auth.AuthEnable.
    pub async fn auth_enable(&self, deadline: Deadline) -> Result<AuthEnableResponse, Error> {
        self.call(AuthEnableRequest {}, deadline, |r| async move { self.auth().auth_enable(r).await }).await
    }

    /// Auth.AuthDisable.
    pub async fn auth_disable(&self, deadline: Deadline) -> Result<AuthDisableResponse, Error> {
        self.call(AuthDisableRequest {}, deadline, |r| async move { self.auth().auth_disable(r).await }).await
    }

    /// Auth.AuthStatus.
    pub async fn auth_status(&self, deadline: Deadline) -> Result<AuthStatusResponse, Error> {
        self.call(AuthStatusRequest {}, deadline, |r| async move { self.auth().auth_status(r).await }).await
    }

    /// Auth.UserAdd.
    pub async fn user_add(
        &self,
        request: AuthUserAddRequest,
        deadline: Deadline,
    ) -> Result<AuthUserAddResponse, Error> {
        self.call(request, deadline, |r| async move { self.auth().user_add(r).await }).await
    }

    /// Auth.UserGet: the roles of a user.
    pub async fn user_get(&self, name: String, deadline: Deadline) -> Result<AuthUserGetResponse, Error> {
        let request = AuthUserGetRequest { name };
        self.call(request, deadline, |r| async move { self.auth().user_get(r).await }).await
    }

    /// Auth.UserList.
    pub async fn user_list(&self, deadline: Deadline) -> Result<AuthUserListResponse, Error> {
        self.call(AuthUserListRequest {}, deadline, |r| async move { self.auth().user_list(r).await }).await
    }

    /// Auth.UserDelete.
    pub async fn user_delete(
        &self,
        name: String,
        deadline: Deadline,
    ) -> Result<AuthUserDeleteResponse, Error> {
        let request = AuthUserDeleteRequest { name };
        self.call(request, deadline, |r| async move { self.auth().user_delete(r).await }).await
    }

    /// Auth.UserChangePassword.
    pub async fn user_change_password(
        &self,
        request: AuthUserChangePasswordRequest,
        deadline: Deadline,
    ) -> Result<AuthUserChangePasswordResponse, Error> {
        self.call(request, deadline, |r| async move { self.auth().user_change_password(r).await }).await
    }

    /// Auth.UserGrantRole.
    pub async fn user_grant_role(
        &self,
        request: AuthUserGrantRoleRequest,
        deadline: Deadline,
    ) -> Result<AuthUserGrantRoleResponse, Error> {
        self.call(request, deadline, |r| async move { self.auth().user_grant_role(r).await }).await
    }

    /// Auth.UserRevokeRole.
    pub async fn user_revoke_role(
        &self,
        request: AuthUserRevokeRoleRequest,
        deadline: Deadline,
    ) -> Result<AuthUserRevokeRoleResponse, Error> {
        self.call(request, deadline, |r| async move { self.auth().user_revoke_role(r).await }).await
    }

    /// Auth.RoleAdd.
    pub async fn role_add(&self, name: String, deadline: Deadline) -> Result<AuthRoleAddResponse, Error> {
        let request = AuthRoleAddRequest { name };
        self.call(request, deadline, |r| async move { self.auth().role_add(r).await }).await
    }

    /// Auth.RoleGet: the permissions of a role.
    pub async fn role_get(&self, role: String, deadline: Deadline) -> Result<AuthRoleGetResponse, Error> {
        let request = AuthRoleGetRequest { role };
        self.call(request, deadline, |r| async move { self.auth().role_get(r).await }).await
    }

    /// Auth.RoleList.
    pub async fn role_list(&self, deadline: Deadline) -> Result<AuthRoleListResponse, Error> {
        self.call(AuthRoleListRequest {}, deadline, |r| async move { self.auth().role_list(r).await }).await
    }

    /// Auth.RoleDelete.
    pub async fn role_delete(
        &self,
        role: String,
        deadline: Deadline,
    ) -> Result<AuthRoleDeleteResponse, Error> {
        let request = AuthRoleDeleteRequest { role };
        self.call(request, deadline, |r| async move { self.auth().role_delete(r).await }).await
    }

    /// Auth.RoleGrantPermission.
    pub async fn role_grant_permission(
        &self,
        request: AuthRoleGrantPermissionRequest,
        deadline: Deadline,
    ) -> Result<AuthRoleGrantPermissionResponse, Error> {
        self.call(request, deadline, |r| async move { self.auth().role_grant_permission(r).await }).await
    }

    /// Auth.RoleRevokePermission.
    pub async fn role_revoke_permission(
        &self,
        request: AuthRoleRevokePermissionRequest,
        deadline: Deadline,
    ) -> Result<AuthRoleRevokePermissionResponse, Error> {
        self.call(request, deadline, |r| async move { self.auth().role_revoke_permission(r).await }).await
    }

    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }
}

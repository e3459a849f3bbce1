//! Users and their tokens, through our client against our servers.

use std::fs;
use std::path::Path;

use blackbox::{Cluster, Member, patience, run};
use bytes::Bytes;
use client::{Client, Config, Credentials, Error};
use rcgen::KeyPair;
use wire::etcdserverpb::{
    AuthUserAddRequest, AuthUserGrantRoleRequest, AuthenticateRequest, PutRequest, RangeRequest,
};
use wire::{ApiError, Code, Status};

const CHEAP: [&str; 2] = ["--bcrypt-cost", "4"];

/// A client of a member that shows this token.
fn with_token(member: &Member, token: &str) -> Client {
    let mut config = Config::new(vec![member.endpoint().parse().expect("an endpoint")]);
    config.credentials = Some(Credentials::Token(token.to_owned()));
    Client::new(config).expect("an endpoint is given")
}

/// User root, whose password is its name, and users count.
async fn enable(client: &Client) {
    let add = AuthUserAddRequest { name: "root".into(), password: "root".into(), ..Default::default() };
    client.user_add(add, patience()).await.expect("a user");
    let grant = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    client.user_grant_role(grant, patience()).await.expect("a role");
    client.auth_enable(patience()).await.expect("authentication");
}

async fn log_in(client: &Client) -> Result<String, Error> {
    let login = AuthenticateRequest { name: "root".into(), password: "root".into() };
    client.authenticate(login, patience()).await.map(|answer| answer.token)
}

async fn put(client: &Client) -> Result<(), Status> {
    let put = PutRequest { key: Bytes::from_static(b"k"), value: "v".into(), ..Default::default() };
    status(client.put(put, patience()).await)
}

async fn get(client: &Client) -> Result<(), Status> {
    let range = RangeRequest { key: Bytes::from_static(b"k"), serializable: true, ..Default::default() };
    status(client.range(range, patience()).await)
}

fn status<T>(ended: Result<T, Error>) -> Result<(), Status> {
    match ended {
        Ok(_) => Ok(()),
        Err(Error::Status(status)) => Err(status),
        Err(other) => panic!("{other:?}"),
    }
}

fn gauge(member: &Member, name: &str) -> String {
    let page = member.http_get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not on {page}")).to_owned()
}

#[test]
fn a_login_is_good_on_every_member_until_it_ends() {
    let mut cluster = Cluster::start(3, &CHEAP);
    run(async {
        enable(&cluster.members[0].client()).await;
        for from in 0..3 {
            let token = log_in(&cluster.members[from].client()).await.expect("a token");
            // At once, also where its login is not applied yet.
            for to in &cluster.members {
                let client = with_token(to, &token);
                assert_eq!(get(&client).await, Ok(()), "of {from}");
                assert_eq!(put(&client).await, Ok(()), "of {from}");
            }
        }
    });
    let token = run(async {
        let token = log_in(&cluster.members[0].client()).await.expect("a token");
        // What it has not applied yet it would hear of again, and know the token.
        assert_eq!(get(&with_token(&cluster.members[1], &token)).await, Ok(()));
        token
    });
    cluster.members[1].terminate();
    cluster.restart(&[1]);
    run(async {
        let invalid = Err(ApiError::InvalidAuthToken.into());
        assert_eq!(
            put(&with_token(&cluster.members[1], &token)).await,
            invalid,
            "it has forgotten its tokens"
        );
        assert_eq!(put(&with_token(&cluster.members[2], &token)).await, Ok(()));
        let root = with_token(&cluster.members[2], &token);
        root.auth_disable(patience()).await.expect("no authentication");
        root.auth_enable(patience()).await.expect("authentication");
        for member in &cluster.members {
            assert_eq!(
                put(&with_token(member, &token)).await,
                invalid,
                "the end of authentication ends tokens"
            );
        }
    });
}

/// The files of a new key, private and public.
fn key_files(dir: &Path) -> (String, String) {
    let pair = KeyPair::generate().expect("a key");
    let (private, public) = (dir.join("private.pem"), dir.join("public.pem"));
    fs::write(&private, pair.serialize_pem()).expect("a file");
    fs::write(&public, pair.public_key_pem()).expect("a file");
    (private.display().to_string(), public.display().to_string())
}

#[test]
fn a_member_with_the_public_key_alone_checks_tokens_and_makes_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (private, public) = key_files(dir.path());
    let mut cluster = Cluster::new(2, &CHEAP);
    let issues = format!("--auth-token=jwt,sign-method=ES256,priv-key={private}");
    let checks = format!("--auth-token=jwt,sign-method=ES256,pub-key={public}");
    cluster.members[0].add_flags(&[&issues]);
    cluster.members[1].add_flags(&[&checks]);
    cluster.restart(&[0, 1]);
    run(async {
        let [issuer, checker] = &cluster.members[..] else { panic!("two members") };
        enable(&issuer.client()).await;
        let token = log_in(&issuer.client()).await.expect("a token");
        assert_eq!(put(&with_token(checker, &token)).await, Ok(()));
        let refused = status(log_in(&checker.client()).await);
        let text = "auth: token signing attempted with verify-only key";
        assert_eq!(refused, Err(Status::new(Code::Unknown, text)));
        // It counts as of its login: whatever changes for users makes it old, also what it does itself.
        let root = with_token(issuer, &token);
        root.role_add("role".into(), patience()).await.expect("a role");
        assert_eq!(put(&root).await, Err(ApiError::AuthOldRevision.into()));
        assert_eq!(get(&root).await, Err(ApiError::AuthOldRevision.into()));
        let token = log_in(&issuer.client()).await.expect("a token");
        assert_eq!(put(&with_token(issuer, &token)).await, Ok(()));
    });
    // What it has signed outlives it.
    let token = run(async { log_in(&cluster.members[0].client()).await.expect("a token") });
    cluster.members[0].terminate();
    cluster.restart(&[0]);
    run(async { assert_eq!(put(&with_token(&cluster.members[0], &token)).await, Ok(())) });
}

#[test]
fn the_log_and_the_page_of_metrics_show_no_secrets() {
    let mut member = Member::start(&["--bcrypt-cost", "4", "--log-level", "debug"]);
    member.announce("invalid auth");
    let token = run(async {
        enable(&member.client()).await;
        let add =
            AuthUserAddRequest { name: "u".into(), password: "hidden-word".into(), ..Default::default() };
        let token = log_in(&member.client()).await.expect("a token");
        with_token(&member, &token).user_add(add, patience()).await.expect("a user");
        let login = AuthenticateRequest { name: "u".into(), password: "hidden-word2".into() };
        let refused = member.client().authenticate(login, patience()).await;
        assert_eq!(status(refused), Err(ApiError::AuthFailed.into()));
        let mistyped = with_token(&member, &format!("{token}7"));
        assert_eq!(put(&mistyped).await, Err(ApiError::InvalidAuthToken.into()));
        // Two users and a role; enabling is no change.
        assert_eq!(gauge(&member, "etcd_debugging_auth_revision"), "4");
        token
    });
    // Its clients have gone, so it waits for none of them.
    member.terminate();
    let log = member.log();
    assert!(log.contains("invalid authentication was requested") && log.contains("token-fingerprint"));
    assert!(!log.contains("hidden-word") && !log.contains(&token), "{log}");
}

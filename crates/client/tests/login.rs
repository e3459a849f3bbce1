//! How a client says who it is: against a server that answers by a script.

mod script;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::{Client, Config, Credentials, Deadline, Error};
use prost::Message;
use script::{DONE, Heard, Step, listen, refuse, say};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{
    AuthenticateRequest, AuthenticateResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest,
    PutResponse, SnapshotResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use wire::{ApiError, Code};

/// Long enough for a busy machine; nothing waits for it.
const LONG: Duration = Duration::from_secs(60);

const LOGIN: &str = "/etcdserverpb.Auth/Authenticate";
const PUT: &str = "/etcdserverpb.KV/Put";

fn alice() -> Option<Credentials> {
    Some(Credentials::Password { user: "alice".into(), password: "pw".into() })
}

/// A server that logs in whoever asks, with the tokens t1, t2, …, and answers other calls by their token.
async fn server(
    credentials: Option<Credentials>,
    answer: impl Fn(Option<&str>) -> Vec<Step> + Send + Sync + 'static,
) -> (Client, UnboundedReceiver<Heard>) {
    let logins = AtomicUsize::new(0);
    let (config, heard) = listen(move |call| {
        if call.path == LOGIN {
            let number = logins.fetch_add(1, Ordering::Relaxed) + 1;
            return vec![
                say(AuthenticateResponse { token: format!("t{number}"), ..Default::default() }),
                DONE,
            ];
        }
        answer(call.token.as_deref())
    })
    .await;
    (Client::new(Config { credentials, ..config }).unwrap(), heard)
}

fn put_done() -> Vec<Step> {
    vec![say(PutResponse::default()), DONE]
}

async fn put(client: &Client) -> Result<PutResponse, Error> {
    let request = PutRequest { key: "k".into(), ..PutRequest::default() };
    client.put(request, Deadline::after(LONG)).await
}

/// The calls so far: path and token.
fn calls(heard: &mut UnboundedReceiver<Heard>) -> Vec<(String, Option<String>)> {
    std::iter::from_fn(|| heard.try_recv().ok()).map(|call| (call.path, call.token)).collect()
}

fn call(path: &str, token: Option<&str>) -> (String, Option<String>) {
    (path.to_owned(), token.map(str::to_owned))
}

#[tokio::test]
async fn a_client_that_is_nobody_sends_no_token() {
    let password = |user: &str, password: &str| {
        Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    };
    let nobodies = [None, password("alice", ""), password("", "pw"), Some(Credentials::Token(String::new()))];
    for credentials in nobodies {
        let (client, mut heard) = server(credentials, |_| put_done()).await;
        client.log_in(Deadline::after(LONG)).await.unwrap();
        put(&client).await.unwrap();
        assert_eq!(calls(&mut heard), [call(PUT, None)]);
    }
}

#[tokio::test]
async fn the_first_call_logs_in_and_the_others_carry_the_token() {
    let (client, mut heard) = server(alice(), |_| put_done()).await;
    put(&client).await.unwrap();
    let first = heard.recv().await.unwrap();
    assert_eq!((&*first.path, first.token), (LOGIN, None));
    let login = AuthenticateRequest::decode(first.message).unwrap();
    assert_eq!((&*login.name, &*login.password), ("alice", "pw"));
    put(&client.clone()).await.unwrap();
    client.log_in(Deadline::after(LONG)).await.unwrap();
    assert_eq!(calls(&mut heard), [call(PUT, Some("t1")), call(PUT, Some("t1"))]);
}

#[tokio::test]
async fn calls_that_come_together_make_one_login() {
    let (client, mut heard) = server(alice(), |token| match token {
        Some("t2") => put_done(),
        _ => vec![refuse(ApiError::InvalidAuthToken)],
    })
    .await;
    let (a, b, c) = tokio::join!(put(&client), put(&client), put(&client));
    assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
    let calls = calls(&mut heard);
    let count = |wanted| calls.iter().filter(|call| **call == wanted).count();
    assert_eq!(calls.iter().filter(|(path, _)| path == LOGIN).count(), 2, "{calls:?}");
    assert_eq!(count(call(PUT, Some("t2"))), 3, "{calls:?}");
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_renewed() {
    for error in [ApiError::InvalidAuthToken, ApiError::AuthOldRevision, ApiError::UserEmpty] {
        let (client, mut heard) = server(alice(), move |token| match token {
            Some("t1") => vec![refuse(error)],
            _ => put_done(),
        })
        .await;
        put(&client).await.unwrap();
        put(&client).await.unwrap();
        let expected = [
            call(LOGIN, None),
            call(PUT, Some("t1")),
            call(LOGIN, Some("t1")),
            call(PUT, Some("t2")),
            call(PUT, Some("t2")),
        ];
        assert_eq!(calls(&mut heard), expected, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_takes_no_token_is_not_asked_for_ever() {
    let (client, mut heard) = server(alice(), |_| vec![refuse(ApiError::InvalidAuthToken)]).await;
    let error = put(&client).await.unwrap_err();
    assert!(error.is(ApiError::InvalidAuthToken), "{error}");
    assert_eq!(calls(&mut heard).len(), 2 * 100);
}

#[tokio::test]
async fn other_refusals_are_the_answer() {
    let (client, mut heard) = server(alice(), |_| vec![refuse(ApiError::PermissionDenied)]).await;
    let error = put(&client).await.unwrap_err();
    assert!(error.is(ApiError::PermissionDenied), "{error}");
    assert_eq!(calls(&mut heard), [call(LOGIN, None), call(PUT, Some("t1"))]);
}

#[tokio::test]
async fn a_login_that_is_refused_is_the_answer() {
    let (config, mut heard) = listen(|_| vec![refuse(ApiError::AuthFailed)]).await;
    let client = Client::new(Config { credentials: alice(), ..config }).unwrap();
    for error in [put(&client).await.unwrap_err(), client.log_in(Deadline::after(LONG)).await.unwrap_err()] {
        assert_eq!(error.to_string(), "etcdserver: authentication failed, invalid user ID or password");
    }
    assert_eq!(calls(&mut heard), [call(LOGIN, None), call(LOGIN, None)]);
}

/// And when it is turned on, the client says who it is.
#[tokio::test]
async fn authentication_may_be_off() {
    let is_on = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&is_on);
    let (config, mut heard) = listen(move |call| {
        let is_on = switch.load(Ordering::Relaxed) > 0;
        match (&*call.path, is_on, &call.token) {
            (LOGIN, false, _) => vec![refuse(ApiError::AuthNotEnabled)],
            (LOGIN, true, _) => {
                vec![say(AuthenticateResponse { token: "t".into(), ..Default::default() }), DONE]
            }
            (_, true, None) => vec![refuse(ApiError::UserEmpty)],
            _ => put_done(),
        }
    })
    .await;
    let client = Client::new(Config { credentials: alice(), ..config }).unwrap();
    put(&client).await.unwrap();
    put(&client).await.unwrap();
    assert_eq!(calls(&mut heard), [call(LOGIN, None), call(PUT, None), call(PUT, None)]);
    is_on.store(1, Ordering::Relaxed);
    put(&client).await.unwrap();
    assert_eq!(calls(&mut heard), [call(PUT, None), call(LOGIN, None), call(PUT, Some("t"))]);
}

#[tokio::test]
async fn a_token_of_the_users_own_is_sent_and_never_renewed() {
    let token = Some(Credentials::Token("jwt".to_owned()));
    let (client, mut heard) = server(token, |_| vec![refuse(ApiError::InvalidAuthToken)]).await;
    client.log_in(Deadline::after(LONG)).await.unwrap();
    let error = put(&client).await.unwrap_err();
    assert!(error.is(ApiError::InvalidAuthToken), "{error}");
    assert_eq!(calls(&mut heard), [call(PUT, Some("jwt"))]);

    let (config, _heard) = listen(|_| Vec::new()).await;
    let credentials = Some(Credentials::Token("a\nb".to_owned()));
    let error = Client::new(Config { credentials, ..config }).err().unwrap();
    assert_eq!(error.code(), Some(Code::Internal), "{error}");
}

/// A certificate needs no login; but who changes users may find that they have changed meanwhile.
#[tokio::test]
async fn a_client_with_a_certificate_tries_again() {
    let refused = AtomicUsize::new(0);
    let (mut config, mut heard) = listen(move |_| match refused.fetch_add(1, Ordering::Relaxed) {
        0 => vec![refuse(ApiError::AuthOldRevision)],
        _ => put_done(),
    })
    .await;
    // Nobody reads it: the endpoint is one without TLS.
    config.tls.cert_file = "client.crt".to_owned();
    put(&Client::new(config).unwrap()).await.unwrap();
    assert_eq!(calls(&mut heard), [call(PUT, None), call(PUT, None)]);
}

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

#[tokio::test]
async fn every_stream_has_a_token_of_its_own() {
    let (client, mut heard) =
        server(alice(), |_| vec![say(LeaseKeepAliveResponse { id: 7, ttl: 5, ..Default::default() }), DONE])
            .await;
    client.log_in(Deadline::after(LONG)).await.unwrap();
    for _ in 0..2 {
        let mut stream = client.keep_alive_stream();
        stream.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().id, 7);
    }
    let expected = [
        call(LOGIN, None),
        call(KEEP_ALIVE, Some("t1")),
        call(LOGIN, Some("t1")),
        call(KEEP_ALIVE, Some("t2")),
    ];
    assert_eq!(calls(&mut heard), expected);
}

#[tokio::test]
async fn a_stream_of_answers_that_is_refused_is_asked_for_again() {
    let (client, mut heard) = server(alice(), |token| match token {
        Some("t1") => vec![refuse(ApiError::InvalidAuthToken)],
        _ => vec![say(SnapshotResponse { blob: "db".into(), ..Default::default() }), DONE],
    })
    .await;
    let mut answers = client.snapshot();
    assert_eq!(answers.next().await.unwrap().unwrap().blob, "db");
    assert!(answers.next().await.unwrap().is_none());
    let paths: Vec<String> = calls(&mut heard).into_iter().map(|(path, _)| path).collect();
    let snapshot = "/etcdserverpb.Maintenance/Snapshot";
    assert_eq!(paths, [LOGIN, snapshot, LOGIN, snapshot]);
}

/// A watch that is not made, as etcd says it.
fn refused_watch(error: ApiError) -> Vec<Step> {
    let cancel_reason = format!("rpc error: code = {:?} desc = {}", error.code(), error.text());
    let refused =
        WatchResponse { created: true, canceled: true, watch_id: -1, cancel_reason, ..Default::default() };
    vec![say(refused), Step::Wait]
}

#[tokio::test]
async fn a_watch_that_is_refused_for_its_token_is_made_with_another_one() {
    let (client, mut heard) = server(alice(), |token| match token {
        Some("t2") => vec![say(WatchResponse { created: true, ..WatchResponse::default() }), Step::Wait],
        _ => refused_watch(ApiError::InvalidAuthToken),
    })
    .await;
    let mut watcher = client.watcher(false);
    let key = watcher.watch(WatchCreateRequest { key: "k".into(), ..Default::default() }).unwrap();
    let made = watcher.next().await.unwrap();
    assert_eq!((made.watch, made.response.created, made.response.canceled), (key, true, false));
    let again = std::iter::from_fn(|| heard.try_recv().ok()).filter(|call| call.path != LOGIN);
    let asked: Vec<RequestUnion> =
        again.map(|call| WatchRequest::decode(call.message).unwrap().request_union.unwrap()).collect();
    assert!(asked.len() == 2 && asked[0] == asked[1], "{asked:?}");
}

#[tokio::test]
async fn a_watch_that_no_token_helps_is_over() {
    let (client, mut heard) = server(alice(), |_| refused_watch(ApiError::AuthOldRevision)).await;
    let mut watcher = client.watcher(false);
    watcher.watch(WatchCreateRequest { key: "k".into(), ..Default::default() }).unwrap();
    let end = watcher.next().await.unwrap().end.unwrap();
    assert_eq!(
        end.to_string(),
        "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
    );
    assert_eq!(calls(&mut heard).len(), 4);
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", alice(), Credentials::Token("secret".to_owned()));
    assert!(shown.contains("alice") && !shown.contains("pw") && !shown.contains("secret"), "{shown}");
}

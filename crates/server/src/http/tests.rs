//! Answers, against what etcd 3.7.1 sent for the same requests; and one connection through hyper.

use std::cell::RefCell;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::listen::closing;

struct Fake {
    alarms: Vec<Alarm>,
    leader: bool,
    learner: bool,
    read: Result<(), String>,
    asked: RefCell<Vec<bool>>,
    versions: Versions,
}

impl Default for Fake {
    fn default() -> Self {
        let versions = Versions { cluster: Some("3.7.0".into()), storage: Some("3.7.0".into()) };
        Fake {
            alarms: Vec::new(),
            leader: true,
            learner: false,
            read: Ok(()),
            asked: RefCell::default(),
            versions,
        }
    }
}

impl Health for Fake {
    fn alarms(&self) -> Vec<Alarm> {
        self.alarms.clone()
    }

    fn has_leader(&self) -> bool {
        self.leader
    }

    fn read(&self, linearizable: bool) -> LocalFuture<'_, Result<(), String>> {
        self.asked.borrow_mut().push(linearizable);
        Box::pin(async { self.read.clone() })
    }

    fn is_learner(&self) -> bool {
        self.learner
    }

    fn versions(&self) -> Versions {
        self.versions.clone()
    }
}

/// Where many may be asked for at once, a page is made once there is room for it.
#[tokio::test]
async fn a_page_waits_for_room() {
    use std::pin::pin;
    use std::task::Poll;

    use crate::grpc::answer::{HELD_BYTES_MAX, Held};
    use crate::grpc::turns::Length;

    let session = Session::new(parties(Rc::new(Fake::default())), true);
    let held = Held::default();
    let mut before = held.reserve(Length::Long, 0).await;
    before.settle(HELD_BYTES_MAX + 1);
    let (_, body) = tokio::sync::mpsc::channel(1);
    let request = Request::builder().uri("/version").body(body).unwrap();
    let mut page = pin!(session.answer(request, Some(held.clone()), None, None));
    assert!(matches!(futures_poll(page.as_mut()).await, Poll::Pending));
    drop(before);
    let mut page = page.await.into_body();
    let charge = page.take_charge();
    assert!(charge.is_some() && held.bytes() > 0);
    drop(charge);
    assert_eq!(held.bytes(), 0);
}

/// One poll.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
}

struct Got {
    status: u16,
    body: String,
    headers: http::HeaderMap,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn site() -> Arc<Site> {
    let second = Duration::from_secs(1);
    Arc::new(Site {
        request_timeout: 7 * second,
        origins: Allowed::Any,
        hosts: Allowed::Any,
        profiles: false,
    })
}

fn parties(health: Rc<dyn Health>) -> Parties {
    Parties { role: Role::Client, health, site: site(), gateway: None, remote: None, certified: None }
}

fn ask(role: Role, method: &str, uri: &str, health: &Fake) -> Got {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let head = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0;
    runtime.block_on(async {
        let response = answer(role, false, &head, health, &site()).await;
        let (head, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got { status: head.status.as_u16(), body, headers: head.headers }
    })
}

#[test]
fn health_is_etcds() {
    let well = Fake::default();
    let got = ask(Role::Client, "GET", "/health", &well);
    assert_eq!((got.status, got.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
    assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(got.header("access-control-allow-origin"), "*");
    ask(Role::Client, "GET", "/health?serializable=true", &well);
    ask(Role::Client, "GET", "/health?serializable=1", &well);
    assert_eq!(*well.asked.borrow(), [true, false, true], "linearizable unless it says serializable=true");
}

#[test]
fn ill_health_has_its_reason() {
    let cases = [
        (Fake { alarms: vec![Alarm::NoSpace], ..Fake::default() }, "/health", "ALARM NOSPACE"),
        (
            Fake { alarms: vec![Alarm::NoSpace, Alarm::Corrupt], ..Fake::default() },
            "/health?exclude=NOSPACE",
            "ALARM CORRUPT",
        ),
        (Fake { leader: false, ..Fake::default() }, "/health", "RAFT NO LEADER"),
        (Fake { read: Err("a <b>".into()), ..Fake::default() }, "/health", "RANGE ERROR:a \\u003cb\\u003e"),
        (
            Fake { leader: false, read: Err("x".into()), ..Fake::default() },
            "/health?serializable=true",
            "RANGE ERROR:x",
        ),
    ];
    for (health, uri, reason) in cases {
        let got = ask(Role::Client, "GET", uri, &health);
        assert_eq!(
            (got.status, got.body.clone()),
            (503, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n")),
            "{uri}"
        );
        assert_eq!(got.header("x-content-type-options"), "nosniff");
    }
    let excluded = Fake { alarms: vec![Alarm::NoSpace, Alarm::Corrupt], ..Fake::default() };
    assert_eq!(ask(Role::Client, "GET", "/health?exclude=NOSPACE&exclude=CORRUPT", &excluded).status, 200);
}

#[test]
fn versions_are_etcds_alone() {
    for role in [Role::Client, Role::Peer] {
        let got = ask(role, "GET", "/version", &Fake::default());
        let body = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
        assert_eq!(
            (got.status, got.body.as_str(), got.header("content-type")),
            (200, body, "application/json")
        );
    }
    let early = Fake { versions: Versions::default(), ..Fake::default() };
    let body = r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#;
    assert_eq!(ask(Role::Peer, "GET", "/version", &early).body, body);
}

#[test]
fn other_methods_and_paths_are_refused_as_in_go() {
    for (role, method, uri, status, body) in [
        (Role::Client, "POST", "/health", 405, "Method Not Allowed\n"),
        (Role::Client, "HEAD", "/health", 405, "Method Not Allowed\n"),
        (Role::Client, "POST", "/version", 405, "Method Not Allowed\n"),
        (Role::Peer, "PUT", "/version", 405, "Method Not Allowed\n"),
        (Role::Client, "GET", "/nope", 404, "404 page not found\n"),
        (Role::Client, "GET", "/health/", 404, "404 page not found\n"),
        (Role::Peer, "GET", "/health", 404, "404 page not found\n"),
        (Role::Peer, "OPTIONS", "/nope", 404, "404 page not found\n"),
        (Role::Client, "OPTIONS", "/nope", 200, ""),
        (Role::Client, "POST", "//health", 307, ""),
        (Role::Peer, "GET", "/x/../version", 307, "<a href=\"/version\">Temporary Redirect</a>.\n\n"),
        (Role::Client, "GET", "/v3", 404, "404 page not found\n"),
    ] {
        let got = ask(role, method, uri, &Fake::default());
        assert_eq!((got.status, got.body.as_str()), (status, body), "{method} {uri}");
        assert_eq!(got.header("allow"), if status == 405 { "GET" } else { "" }, "{method} {uri}");
        assert_eq!(got.headers.contains_key("access-control-allow-origin"), role == Role::Client);
    }
}

#[test]
fn a_request_says_once_whom_it_is_for() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (version, hosts, text) in [
        ("1.1", "", Some("400 Bad Request: missing required Host header")),
        ("1.1", "Host: a\r\nHost: a\r\n", Some("400 Bad Request")),
        ("1.1", "Host: a b\r\n", Some("400 Bad Request: malformed Host header")),
        ("1.0", "Host: a/b\r\n", Some("400 Bad Request: malformed Host header")),
        ("1.0", "", None),
        ("1.1", "Host: [::1]:2379\r\n", None),
        ("1.1", "Host:\r\n", None),
    ] {
        let local = tokio::task::LocalSet::new();
        let got = local.block_on(&runtime, async {
            let (stream, mut client) = Stream::pair().unwrap();
            let (_stop, closing) = closing();
            let health: Rc<dyn Health> = Rc::new(Fake::default());
            let request = format!("GET /version HTTP/{version}\r\n{hosts}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            serve(stream, parties(health), closing).await;
            let mut got = String::new();
            client.read_to_string(&mut got).await.unwrap();
            got
        });
        let (status, body) = (&got[9..12], got.rsplit("\r\n").next().unwrap());
        match text {
            Some(text) => assert_eq!((status, body), ("400", text), "{hosts:?}"),
            None => assert_eq!(status, "200", "{hosts:?}: {got}"),
        }
        assert_eq!(got.to_lowercase().contains("connection: close"), text.is_some(), "{hosts:?}: {got}");
    }
}

#[test]
fn a_connection_is_kept_until_closing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let (stream, mut client) = Stream::pair().unwrap();
        let (stop, closing) = closing();
        let health: Rc<dyn Health> = Rc::new(Fake::default());
        let served = tokio::task::spawn_local(serve(stream, parties(health), closing));
        for _ in 0..2 {
            client.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
            let mut got = String::new();
            while !got.ends_with('}') {
                let mut part = [0; 1024];
                let came = client.read(&mut part).await.unwrap();
                assert!(came > 0, "closed after {got}");
                got.push_str(std::str::from_utf8(&part[..came]).unwrap());
            }
            assert!(
                got.starts_with("HTTP/1.1 200 OK\r\n") && got.contains("\r\nContent-Length: 29\r\n"),
                "{got}"
            );
        }
        stop.send(true).unwrap();
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0, "an idle connection ends");
        served.await.unwrap();
    });
}

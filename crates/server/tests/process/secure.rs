//! Ports with TLS: which of them mind pings, HTTP/2 wherever etcd agrees on it, and whose certificate the gateway refuses.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::Request;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::place::{Place, Server};

/// A connection that has agreed on HTTP/2, and nothing else.
struct Client {
    requests: SendRequest<Bytes>,
    pings: PingPong,
}

impl Client {
    async fn connect(address: SocketAddr, info: &tls::Info) -> Client {
        let dialing = tls::Client::new(info, &["h2"]).unwrap().begin("127.0.0.1").unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let stream = TlsConnector::from(dialing.config).connect(dialing.name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (requests, mut connection) = h2::client::handshake(stream).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Client { requests, pings }
    }

    async fn ask(&mut self, method: &str, path: &str, header: (&str, &str), body: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(format!("https://h{path}"));
        let request = request.header(header.0, header.1).body(()).unwrap();
        let (answer, mut sender) = self.requests.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            sender.send_data(Bytes::from(body.to_owned()), true).unwrap();
        }
        let (head, mut body) = answer.await.unwrap().into_parts();
        let mut got = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            got.extend_from_slice(&data);
        }
        (head.status.as_u16(), String::from_utf8(got).unwrap())
    }

    async fn post(&mut self, path: &str, token: &str, body: &str) -> (u16, String) {
        self.ask("POST", path, ("authorization", token), body).await
    }

    /// Pings, each after the answer to the one before, until one has none; how many had one.
    async fn ping(&mut self, count: usize) -> usize {
        for answered in 0..count {
            if self.pings.ping(Ping::opaque()).await.is_err() {
                return answered;
            }
        }
        count
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// As etcd, whose gRPC has Go's HTTP server below it there.
#[test]
fn a_port_that_gives_grpc_and_http_by_tls_minds_no_pings() {
    let place = Place::new();
    let flags = ["--listen-client-urls", "https://127.0.0.1:0", "--auto-tls"];
    let server = place.serve(&[&flags[..], &["--grpc-keepalive-min-time", "1h"]].concat());
    let info = tls::Info { insecure_skip_verify: true, ..tls::Info::default() };
    run(async {
        let mut client = Client::connect(server.client(), &info).await;
        assert_eq!(client.ping(20).await, 20);
        assert_eq!(client.ask("GET", "/health", ("accept", "*/*"), "").await.0, 200);
    });
}

/// What listens with TLS, each port for itself, and asks for certificates.
struct Split {
    server: Server,
    http: SocketAddr,
    metrics: SocketAddr,
    place: Place,
    issuer: Issuer<'static, KeyPair>,
}

impl Split {
    fn start() -> Split {
        let place = Place::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let text = |name: &str| place.dir.path().join(name).display().to_string();
        std::fs::write(text("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        issue(place.dir.path(), &issuer, "server", "");
        let (http, metrics) = (free(), free());
        let server = place.serve(&[
            "--listen-client-urls",
            "https://127.0.0.1:0",
            "--listen-client-http-urls",
            &format!("https://{http}"),
            "--listen-metrics-urls",
            &format!("https://{metrics}"),
            "--client-cert-auth",
            "--trusted-ca-file",
            &text("ca.crt"),
            "--cert-file",
            &text("server.crt"),
            "--key-file",
            &text("server.key"),
        ]);
        Split { server, http, metrics, place, issuer }
    }

    /// A client with a certificate of this name, which may be none.
    async fn connect(&self, address: SocketAddr, common_name: &str) -> Client {
        let dir = self.place.dir.path();
        issue(dir, &self.issuer, "client", common_name);
        let text = |name: &str| dir.join(name).display().to_string();
        let (cert_file, key_file) = (text("client.crt"), text("client.key"));
        let trusted_ca_file = text("ca.crt");
        let info = tls::Info { cert_file, key_file, trusted_ca_file, ..tls::Info::default() };
        Client::connect(address, &info).await
    }
}

/// Makes a certificate of 127.0.0.1, for both sides, and its key.
fn issue(dir: &Path, issuer: &Issuer<'static, KeyPair>, file: &str, common_name: &str) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join(file).with_extension("crt"), params.signed_by(&key, issuer).unwrap().pem())
        .unwrap();
    std::fs::write(dir.join(file).with_extension("key"), key.serialize_pem()).unwrap();
}

#[test]
fn ports_of_their_own_speak_http2_and_refuse_names_at_the_gateway() {
    let split = Split::start();
    run(async {
        let mut metrics = split.connect(split.metrics, "someone").await;
        let (status, page) = metrics.ask("GET", "/metrics", ("accept", "*/*"), "").await;
        assert!(status == 200 && page.contains("\netcd_server_has_leader 1\n"), "{status} {page}");
        assert_eq!(metrics.ping(10).await, 10);

        let mut http = split.connect(split.http, "").await;
        assert_eq!(http.ask("GET", "/health", ("accept", "*/*"), "").await.0, 200);
        let grpc = ("content-type", "application/grpc");
        let nowhere = (404, "404 page not found\n".to_owned());
        assert_eq!(http.ask("POST", "/etcdserverpb.KV/Range", grpc, "\0\0\0\0\0").await, nowhere);

        let mut calls = split.connect(split.server.client(), "").await;
        assert!(calls.ping(10).await <= 4, "where there is gRPC alone, pings are counted");

        // The name in a certificate says who asks, but not through the gateway: it is refused.
        let mut named = split.connect(split.http, "root").await;
        let range = ("/v3/kv/range", r#"{"key":"YQ=="}"#);
        assert_eq!(named.post(range.0, "", range.1).await.0, 200, "nobody counts yet");
        for (path, body) in [
            ("user/add", r#"{"name":"root","password":"r"}"#),
            ("user/grant", r#"{"user":"root","role":"root"}"#),
            ("enable", "{}"),
        ] {
            let (status, said) = http.post(&format!("/v3/auth/{path}"), "", body).await;
            assert_eq!(status, 200, "{path}: {said}");
        }
        let root = r#"{"name":"root","password":"r"}"#;
        let (_, said) = http.post("/v3/auth/authenticate", "", root).await;
        let token =
            said.split(r#""token":""#).nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
        assert_eq!(http.post(range.0, token, range.1).await.0, 200);
        let refused = "CommonName of client sending a request against gateway will be ignored and not used as \
                       expected\n";
        assert_eq!(named.post(range.0, token, range.1).await, (400, refused.to_owned()));
        assert_eq!(named.ask("GET", "/health", ("accept", "*/*"), "").await.0, 200, "that is no gateway");
    });
}

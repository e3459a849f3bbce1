//! Both sides of handshakes in memory, with certificates of every kind, each made here: who is let in, and what the log
//! says of who is not.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, RevokedCertParams,
    SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::{ClientConnection, ServerConnection};
use tls::{Alpn, Client, Info, Pool, Seen, Server, Suites, Version};

const HOUR: i64 = 3600;

/// An authority with a folder for what it makes.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    file: String,
    serial: u64,
}

/// What a certificate is to be like.
#[derive(Clone)]
struct Spec {
    cn: &'static str,
    sans: &'static [&'static str],
    /// Hours from now.
    valid: (i64, i64),
    usages: Vec<ExtendedKeyUsagePurpose>,
    algorithm: &'static SignatureAlgorithm,
    is_ca: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            cn: "someone",
            sans: &["localhost", "127.0.0.1"],
            valid: (-1, 12),
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            algorithm: &PKCS_ECDSA_P256_SHA256,
            is_ca: false,
        }
    }
}

/// The files of a certificate and its key, and its number.
#[derive(Clone)]
struct Pair(String, String, SerialNumber);

fn moment(hours: i64) -> impl Fn(&mut CertificateParams, bool) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = i64::try_from(now.as_secs()).unwrap() + hours * HOUR;
    move |params, is_end| {
        let time = date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(at).unwrap());
        if is_end {
            params.not_after = time;
        } else {
            params.not_before = time;
        }
    }
}

fn params(spec: &Spec, serial: u64) -> CertificateParams {
    let sans: Vec<String> = spec.sans.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(sans).unwrap();
    params.distinguished_name = DistinguishedName::new();
    if !spec.cn.is_empty() {
        params.distinguished_name.push(DnType::CommonName, spec.cn);
    }
    moment(spec.valid.0)(&mut params, false);
    moment(spec.valid.1)(&mut params, true);
    params.extended_key_usages.clone_from(&spec.usages);
    params.serial_number = Some(serial.into());
    if spec.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    }
    params
}

impl Authority {
    fn new(name: &'static str) -> Authority {
        Authority::like(&Spec { cn: name, sans: &[], usages: Vec::new(), is_ca: true, ..Spec::default() })
    }

    fn like(spec: &Spec) -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = params(spec, 1);
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { file: text(file), dir, issuer: Issuer::new(params, key), serial: 1 }
    }

    fn issue(&mut self, spec: &Spec) -> Pair {
        self.serial += 1;
        let key = KeyPair::generate_for(spec.algorithm).unwrap();
        let made = params(spec, self.serial).signed_by(&key, &self.issuer).unwrap();
        let pair = Pair(self.path(".crt"), self.path(".key"), self.serial.into());
        std::fs::write(&pair.0, made.pem()).unwrap();
        std::fs::write(&pair.1, key.serialize_pem()).unwrap();
        pair
    }

    fn path(&self, end: &str) -> String {
        text(self.dir.path().join(format!("{}{end}", self.serial)))
    }

    /// A list of these as revoked.
    fn revoke(&self, file: &str, revoked: &[&Pair]) {
        let now = date_time_ymd(2020, 1, 1);
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|pair| RevokedCertParams {
                    serial_number: pair.2.clone(),
                    revocation_time: now,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(file, list.signed_by(&self.issuer).unwrap().der()).unwrap();
    }
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

fn of(pair: &Pair) -> Info {
    Info { cert_file: pair.0.clone(), key_file: pair.1.clone(), ..Info::default() }
}

/// What came of a handshake: the server's reason and the client's, and what the server has met.
struct Came {
    server: Option<String>,
    client: Option<String>,
    met: Seen,
    version: Option<rustls::ProtocolVersion>,
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Moves bytes to and fro until nothing moves any more.
fn shake(server: &Server, client: &Client, host: &str) -> Came {
    let dialing = client.begin(host).unwrap();
    let accepting = server.begin(Alpn::H2);
    let mut ours = ServerConnection::new(accepting.config).unwrap();
    let mut theirs = ClientConnection::new(dialing.config, dialing.name).unwrap();
    let (mut server_failure, mut client_failure) = (None, None);
    for _ in 0..8 {
        let mut wire = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() && server_failure.is_none() {
            ours.read_tls(&mut rest).unwrap();
            server_failure = ours.process_new_packets().err().map(invalid);
        }
        let mut wire = Vec::new();
        while ours.wants_write() {
            ours.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() && client_failure.is_none() {
            theirs.read_tls(&mut rest).unwrap();
            client_failure = theirs.process_new_packets().err().map(invalid);
        }
    }
    if server_failure.is_none() && client_failure.is_none() {
        assert!(!ours.is_handshaking() && !theirs.is_handshaking(), "it hangs");
    }
    Came {
        server: server_failure.map(|error| accepting.seen.reason(&error)),
        client: client_failure.map(|error| dialing.seen.reason(&error)),
        met: accepting.seen,
        version: ours.protocol_version(),
    }
}

#[test]
fn clients_with_certificates_of_every_kind() {
    let (mut ca, mut other) = (Authority::new("ca"), Authority::new("other"));
    let own = ca.issue(&Spec::default());
    let asking = Info { trusted_ca_file: ca.file.clone(), client_cert_auth: true, ..of(&own) };
    let server = Server::new(&asking).unwrap();
    let spec = Spec::default;
    let only = |usage: ExtendedKeyUsagePurpose| Spec { usages: vec![usage], ..spec() };
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    let time =
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time ";
    let usage = "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage";
    for (name, pair, refusal) in [
        ("a good one", ca.issue(&spec()), None),
        ("P-384", ca.issue(&Spec { algorithm: &PKCS_ECDSA_P384_SHA384, ..spec() }), None),
        ("P-521", ca.issue(&Spec { algorithm: &PKCS_ECDSA_P521_SHA512, ..spec() }), None),
        ("Ed25519", ca.issue(&Spec { algorithm: &PKCS_ED25519, ..spec() }), None),
        ("RSA", ca.issue(&Spec { algorithm: &PKCS_RSA_SHA256, ..spec() }), None),
        ("no common name", ca.issue(&Spec { cn: "", ..spec() }), None),
        ("no alternative names", ca.issue(&Spec { sans: &[], ..spec() }), None),
        ("another address", ca.issue(&Spec { sans: &["10.9.8.7"], ..spec() }), None),
        ("for clients only", ca.issue(&only(ExtendedKeyUsagePurpose::ClientAuth)), None),
        ("for any use", ca.issue(&Spec { usages: Vec::new(), ..spec() }), None),
        (
            "for servers only",
            ca.issue(&only(ExtendedKeyUsagePurpose::ServerAuth)),
            Some((usage, "bad certificate")),
        ),
        ("of another authority", other.issue(&spec()), Some((unknown, "unknown certificate authority"))),
        ("expired", ca.issue(&Spec { valid: (-3, -1), ..spec() }), Some((time, "expired certificate"))),
        ("not valid yet", ca.issue(&Spec { valid: (1, 3), ..spec() }), Some((time, "expired certificate"))),
    ] {
        let client = Client::new(&Info { trusted_ca_file: ca.file.clone(), ..of(&pair) }, &["h2"]).unwrap();
        let came = shake(&server, &client, "localhost");
        let met = came.met.certificate().expect("the server has met it");
        assert!(pair.2.to_bytes().ends_with(&met.serial), "{name}");
        match refusal {
            None => assert_eq!((came.server, came.client), (None, None), "{name}"),
            Some((why, alert)) => {
                let said = came.server.expect(name);
                assert!(said.starts_with(why), "{name}: {said}");
                assert_eq!(came.client.as_deref(), Some(&*format!("remote error: tls: {alert}")), "{name}");
            }
        }
    }
    let nobody = Client::new(&Info { trusted_ca_file: ca.file.clone(), ..Info::default() }, &["h2"]).unwrap();
    let came = shake(&server, &nobody, "localhost");
    assert_eq!(came.server.as_deref(), Some("tls: client didn't provide a certificate"));
    assert_eq!(came.client.as_deref(), Some("remote error: tls: certificate required"));
}

#[test]
fn servers_with_certificates_of_every_kind() {
    let (mut ca, other) = (Authority::new("ca"), Authority::new("other"));
    let spec = Spec::default;
    let client = |file: &str| {
        Client::new(&Info { trusted_ca_file: file.to_owned(), ..Info::default() }, &["h2"]).unwrap()
    };
    for (name, made, trusted, host, refusal) in [
        ("a good one", spec(), &ca.file.clone(), "localhost", ""),
        ("its address", spec(), &ca.file.clone(), "127.0.0.1", ""),
        (
            "another address",
            spec(),
            &ca.file.clone(),
            "127.0.0.2",
            "x509: certificate is valid for 127.0.0.1, not 127.0.0.2",
        ),
        (
            "another name",
            spec(),
            &ca.file.clone(),
            "a.b",
            "x509: certificate is valid for localhost, not a.b",
        ),
        (
            "no names",
            Spec { sans: &[], ..spec() },
            &ca.file.clone(),
            "localhost",
            "x509: certificate relies on legacy Common Name field, use SANs instead",
        ),
        (
            "unknown",
            spec(),
            &other.file.clone(),
            "localhost",
            "x509: certificate signed by unknown authority",
        ),
        (
            "expired",
            Spec { valid: (-3, -1), ..spec() },
            &ca.file.clone(),
            "localhost",
            "x509: certificate has expired or is not yet valid",
        ),
    ] {
        let server = Server::new(&of(&ca.issue(&made))).unwrap();
        let came = shake(&server, &client(trusted), host);
        match refusal {
            "" => assert_eq!((came.server, came.client), (None, None), "{name}"),
            why => {
                let said = came.client.expect(name);
                assert!(
                    said.starts_with(&format!("tls: failed to verify certificate: {why}")),
                    "{name}: {said}"
                );
            }
        }
    }
    let bad = ca.issue(&Spec { valid: (-3, -1), sans: &[], ..spec() });
    let server = Server::new(&of(&bad)).unwrap();
    let anyone = Client::new(&Info { insecure_skip_verify: true, ..Info::default() }, &["h2"]).unwrap();
    assert!(shake(&server, &anyone, "localhost").client.is_none(), "who does not verify takes it");
}

/// A trusted certificate that is none of an authority is trusted itself, and nobody whom it has signed; and an
/// authority's own time counts.
#[test]
fn only_authorities_that_are_valid_vouch_for_others() {
    let mut good = Authority::new("good");
    let own = good.issue(&Spec::default());
    let authority = Spec { is_ca: true, ..Spec::default() };
    for spec in
        [Spec::default(), Spec { valid: (-3, -1), ..authority.clone() }, Spec { valid: (1, 3), ..authority }]
    {
        let mut bad = Authority::like(&spec);
        let pair = bad.issue(&Spec::default());
        // Beside one that is right, and alone.
        let both = text(bad.dir.path().join("both"));
        let files = [&good.file, &bad.file].map(|file| std::fs::read_to_string(file).unwrap());
        std::fs::write(&both, files.concat()).unwrap();
        for trusted in [&both, &bad.file] {
            let trusting = Info { trusted_ca_file: trusted.clone(), ..Info::default() };
            let asking = Info {
                client_cert_auth: true,
                cert_file: own.0.clone(),
                key_file: own.1.clone(),
                ..trusting.clone()
            };
            let server = Server::new(&asking).unwrap();
            let client =
                Client::new(&Info { trusted_ca_file: good.file.clone(), ..of(&pair) }, &["h2"]).unwrap();
            let refusal = shake(&server, &client, "localhost").server.expect("nobody vouches for the client");
            assert!(refusal.contains("unknown authority"), "{refusal}");

            let server = Server::new(&of(&pair)).unwrap();
            let client = Client::new(&trusting, &["h2"]).unwrap();
            let refusal = shake(&server, &client, "localhost").client.expect("nor for the server");
            assert!(refusal.contains("unknown authority"), "{refusal}");
        }
        let asking = Info { client_cert_auth: true, trusted_ca_file: both, ..of(&own) };
        let client = Client::new(&Info { trusted_ca_file: good.file.clone(), ..of(&own) }, &["h2"]).unwrap();
        assert_eq!(
            shake(&Server::new(&asking).unwrap(), &client, "localhost").server,
            None,
            "the other one does"
        );
    }
}

/// As `--auto-tls` makes them, and as users make them who have no authority.
#[test]
fn a_certificate_that_is_its_own_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (text(dir.path().join("c")), text(dir.path().join("k")));
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let made = params(&Spec { is_ca: true, ..Spec::default() }, 7).self_signed(&pair).unwrap();
    std::fs::write(&cert, made.pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    let info = Info { trusted_ca_file: cert.clone(), ..of(&Pair(cert, key, 7_u64.into())) };
    let (server, client) = (Server::new(&info).unwrap(), Client::new(&info, &["h2"]).unwrap());
    let came = shake(&server, &client, "localhost");
    assert_eq!((came.server, came.client), (None, None));
    let came = shake(&server, &client, "elsewhere");
    assert!(came.client.unwrap().ends_with("not elsewhere"), "its names still count");
}

#[test]
fn the_revoked_are_refused_by_the_list_as_it_is_now() {
    let mut ca = Authority::new("ca");
    let (own, bad, good) =
        (ca.issue(&Spec::default()), ca.issue(&Spec::default()), ca.issue(&Spec::default()));
    let list = text(ca.dir.path().join("crl"));
    let info = Info { trusted_ca_file: ca.file.clone(), crl_file: list.clone(), ..of(&own) };
    let server = Server::new(&info).unwrap();
    let came = |pair: &Pair| {
        let client = Client::new(&Info { trusted_ca_file: ca.file.clone(), ..of(pair) }, &["h2"]).unwrap();
        shake(&server, &client, "localhost").server
    };
    let missing = format!("open {list}: no such file or directory");
    assert_eq!(came(&good).as_deref(), Some(&*missing), "without the list nobody is let in");
    ca.revoke(&list, &[]);
    assert_eq!((came(&good), came(&bad)), (None, None));
    ca.revoke(&list, &[&bad]);
    assert_eq!(came(&good), None);
    assert_eq!(came(&bad).as_deref(), Some("transport: certificate serial 03 revoked"));
    std::fs::write(&list, "nonsense").unwrap();
    assert!(came(&good).unwrap().starts_with("x509: malformed crl: "));
}

#[test]
fn allowed_names() {
    let mut ca = Authority::new("ca");
    let own = ca.issue(&Spec::default());
    let base = Info { trusted_ca_file: ca.file.clone(), ..of(&own) };
    let listed = ["good".to_owned(), "also".to_owned()].to_vec();
    let by_cn = Server::new(&Info { allowed_cns: listed, ..base.clone() }).unwrap();
    let hosts = vec!["good.example".to_owned()];
    let by_host = Server::new(&Info { allowed_hostnames: hosts.clone(), ..base.clone() }).unwrap();
    let mut came = |server: &Server, spec: Spec| {
        let pair = ca.issue(&spec);
        let client = Client::new(&Info { trusted_ca_file: ca.file.clone(), ..of(&pair) }, &["h2"]).unwrap();
        shake(server, &client, "localhost").server
    };
    let refused = Some("client certificate authentication failed".to_owned());
    for (cn, want) in [("good", None), ("also", None), ("bad", refused.clone()), ("", refused.clone())] {
        assert_eq!(came(&by_cn, Spec { cn, ..Spec::default() }), want, "{cn}");
    }
    let cases: [(&'static [&'static str], _); 5] = [
        (&["good.example"], None),
        (&["*.example"], None),
        (&["x.example"], refused.clone()),
        (&["a.good.example"], refused.clone()),
        (&[], refused),
    ];
    for (sans, want) in cases {
        assert_eq!(came(&by_host, Spec { cn: "good.example", sans, ..Spec::default() }), want, "{sans:?}");
    }
    let both = Info { allowed_cns: vec!["a".to_owned()], allowed_hostnames: hosts, ..base };
    let text =
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\"], hostnames=[\"good.example\"])";
    assert_eq!(Server::new(&both).unwrap_err().to_string(), text);
}

#[test]
fn versions_and_suites() {
    let mut ca = Authority::new("ca");
    let own = of(&ca.issue(&Spec::default()));
    let trusting = Info { trusted_ca_file: ca.file.clone(), ..Info::default() };
    let came = |server: Info, client: Info| {
        shake(&Server::new(&server).unwrap(), &Client::new(&client, &["h2"]).unwrap(), "localhost")
    };
    let (low, high) = (Some(Version::Tls12), Some(Version::Tls13));
    assert_eq!(came(own.clone(), trusting.clone()).version, Some(rustls::ProtocolVersion::TLSv1_3));
    let old = Info { version_max: low, ..trusting.clone() };
    assert_eq!(came(own.clone(), old.clone()).version, Some(rustls::ProtocolVersion::TLSv1_2));
    let refused = came(Info { version_min: high, ..own.clone() }, old.clone());
    assert_eq!(refused.server.as_deref(), Some("tls: client offered only unsupported versions"));
    assert_eq!(refused.client.as_deref(), Some("remote error: tls: protocol version not supported"));
    let one = |name: &str| Suites::from_names(&[name.to_owned()]).unwrap();
    let server = Info { suites: one("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), ..own };
    assert!(came(server.clone(), old.clone()).server.is_none());
    let other = Info { suites: one("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), ..old };
    let none = "tls: no cipher suite supported by both client and server";
    assert_eq!(came(server, other).server.as_deref(), Some(none));
}

#[test]
fn files_that_do_not_do() {
    let mut ca = Authority::new("ca");
    let (one, two) = (ca.issue(&Spec::default()), ca.issue(&Spec::default()));
    let why = |cert: &str, key: &str| {
        Server::new(&of(&Pair(cert.into(), key.into(), 0_u64.into()))).unwrap_err().to_string()
    };
    assert_eq!(why("", "k"), "KeyFile and CertFile must both be present[key: k, cert: ]");
    assert_eq!(why("/none", &one.1), "open /none: no such file or directory");
    assert_eq!(why(&one.0, &two.1), "tls: private key does not match public key");
    let switched = why(&one.1, &one.0);
    assert!(switched.contains("PEM inputs may have been switched"), "{switched}");
    let junk = text(ca.dir.path().join("junk"));
    std::fs::write(&junk, "junk").unwrap();
    assert_eq!(why(&junk, &one.1), "tls: failed to find any PEM data in certificate input");
    assert_eq!(why(&one.0, &junk), "tls: failed to find any PEM data in key input");
    let nobody = Server::new(&Info { trusted_ca_file: junk.clone(), ..of(&one) }).unwrap();
    let client = Client::new(&Info { trusted_ca_file: ca.file.clone(), ..of(&two) }, &["h2"]).unwrap();
    assert!(shake(&nobody, &client, "localhost").server.unwrap().contains("unknown authority"));
    assert!(Pool::read("/none").is_err());
}

#[test]
fn a_certificate_is_read_again() {
    let mut ca = Authority::new("ca");
    let (first, second) = (ca.issue(&Spec::default()), ca.issue(&Spec::default()));
    let server = Server::new(&of(&first)).unwrap();
    let client = Client::new(&Info { trusted_ca_file: ca.file.clone(), ..Info::default() }, &["h2"]).unwrap();
    assert!(shake(&server, &client, "localhost").client.is_none());
    std::fs::copy(&second.0, &first.0).unwrap();
    let between = server.begin(Alpn::H2).failure.unwrap();
    assert_eq!(between.to_string(), "tls: private key does not match public key");
    assert!(shake(&server, &client, "localhost").server.is_some());
    std::fs::copy(&second.1, &first.1).unwrap();
    assert!(shake(&server, &client, "localhost").client.is_none());
}

/// A chain of root, authority between, and end, where the root says so; the files of the root and of the end.
fn chain_below(dir: &std::path::Path, root: &CertificateParams, between: bool) -> (String, Info) {
    let authority = Spec { is_ca: true, sans: &[], usages: Vec::new(), ..Spec::default() };
    let write = |name: &str, text_of: String| {
        let path = dir.join(name);
        std::fs::write(&path, text_of).unwrap();
        text(path)
    };
    let root_key = KeyPair::generate().unwrap();
    let root_file = write("root.crt", root.self_signed(&root_key).unwrap().pem());
    let mut issuer = Issuer::new(root.clone(), root_key);
    let mut behind = String::new();
    if between {
        let key = KeyPair::generate().unwrap();
        let made = params(&Spec { cn: "between", ..authority }, 2);
        behind = made.signed_by(&key, &issuer).unwrap().pem();
        issuer = Issuer::new(made, key);
    }
    let key = KeyPair::generate().unwrap();
    let leaf = params(&Spec::default(), 3).signed_by(&key, &issuer).unwrap();
    let cert_file = write("leaf.crt", leaf.pem() + &behind);
    let key_file = write("leaf.key", key.serialize_pem());
    (root_file, Info { cert_file, key_file, ..Info::default() })
}

/// What a root may be used for, and how many may stand below it, holds for its chains, as in Go.
#[test]
fn what_a_root_says_of_itself_counts() {
    let authority = Spec { cn: "root", is_ca: true, sans: &[], usages: Vec::new(), ..Spec::default() };
    let root = |usages: &[ExtendedKeyUsagePurpose], below: Option<u8>| {
        let mut root = params(&Spec { usages: usages.to_vec(), ..authority.clone() }, 1);
        root.is_ca = IsCa::Ca(below.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
        root
    };
    let (server_auth, client_auth) =
        (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    let usage = "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage";
    let many = "tls: failed to verify certificate: x509: too many intermediates for path length constraint";
    for (name, root, between, for_clients, for_servers) in [
        ("any use", root(&[], None), true, None, None),
        ("both uses", root(&[server_auth.clone(), client_auth.clone()], Some(1)), true, None, None),
        ("servers only", root(&[server_auth], None), false, Some(usage), None),
        ("clients only", root(&[client_auth], None), true, None, Some(usage)),
        ("nobody between, and nobody is", root(&[], Some(0)), false, None, None),
        ("nobody between, and somebody is", root(&[], Some(0)), true, Some(many), Some(many)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (root_file, pair) = chain_below(dir.path(), &root, between);
        let trusting = Info { trusted_ca_file: root_file, ..pair.clone() };
        let anyone = Client::new(&Info { insecure_skip_verify: true, ..pair.clone() }, &["h2"]).unwrap();
        let came = shake(&Server::new(&trusting).unwrap(), &anyone, "localhost");
        assert_eq!(came.server.as_deref(), for_clients, "{name}, a client's");

        let verifying = Client::new(&trusting, &["h2"]).unwrap();
        let came = shake(&Server::new(&pair).unwrap(), &verifying, "localhost");
        assert_eq!(came.client.as_deref(), for_servers, "{name}, a server's");
    }
}

//! The side that others connect to.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::CLIENT_AUTH;
use crate::suites::Parts;
use crate::verify::{Demands, Look};
use crate::watched::Watched;
use crate::{Error, Info, Pair, Pool, Seen};

/// What HTTP/2 is called in a handshake.
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Which protocol the server names in its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// None, to a client that asked for none, or for HTTP/1.1 alone.
    Silent,
}

impl Alpn {
    /// What a server for HTTP answers to this client, as Go's does.
    pub fn for_hello(hello: &ClientHello<'_>) -> Alpn {
        let mut asked = hello.alpn().into_iter().flatten().peekable();
        match asked.peek() {
            None => Alpn::Silent,
            Some(_) => {
                let (mut h2, mut http1) = (false, false);
                for protocol in asked {
                    h2 |= protocol == H2;
                    http1 |= protocol == HTTP1;
                }
                if http1 && !h2 { Alpn::Silent } else { Alpn::H2 }
            }
        }
    }
}

/// Takes connections. May be shared.
#[derive(Debug)]
pub struct Server {
    parts: Parts,
    own: Watched<Pair>,
    clients: Option<Arc<Clients>>,
}

/// One handshake.
#[derive(Debug)]
pub struct Accepting {
    /// What the library is to do it with.
    pub config: Arc<ServerConfig>,
    /// What came of it.
    pub seen: Seen,
    /// Why there is no certificate to show: the handshake will fail.
    pub failure: Option<Error>,
}

impl Server {
    /// Reads and checks everything that the handshakes will need.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(info: &Info) -> Result<Server, Error> {
        info.check()?;
        let own = vec![info.cert_file.clone(), info.key_file.clone()];
        let own = Watched::new(own, |paths| Pair::read(&paths[0], &paths[1]))?;
        if !info.client_cert_file.is_empty() {
            Pair::read(&info.client_cert_file, &info.client_key_file)?;
        }
        let parts = Parts::of(info)?;
        let clients = match info.asks_for_certificates() {
            false => None,
            true => Some(Arc::new(Clients::new(info, &parts)?)),
        };
        Ok(Server { parts, own, clients })
    }

    /// Whether those who connect must show a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.clients.is_some()
    }

    /// Begins a handshake, with the certificate that the files hold now.
    ///
    /// # Panics
    /// Never: what could make the library refuse was tried at the start.
    pub fn begin(&self, alpn: Alpn) -> Accepting {
        let seen = Seen::default();
        let (own, failure) = match self.own.get() {
            Ok(pair) => (Some(Arc::clone(&pair.key)), None),
            Err(error) => (None, Some(error)),
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.parts.provider))
            .with_protocol_versions(&self.parts.versions)
            .expect("tried at the start");
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let verifier = ClientVerifier { clients: Arc::clone(clients), seen: seen.clone() };
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Own(own)));
        // A resumed session would pass by the verification.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = match alpn {
            Alpn::H2 => vec![H2.to_vec()],
            Alpn::Silent => Vec::new(),
        };
        Accepting { config: Arc::new(config), seen, failure }
    }
}

/// The certificate of one handshake.
#[derive(Debug)]
struct Own(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// How those who connect are verified.
struct Clients {
    pool: Pool,
    /// `None` where nobody is trusted.
    chains: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
    algorithms: WebPkiSupportedAlgorithms,
    demands: Demands,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("demands", &self.demands).finish_non_exhaustive()
    }
}

impl Clients {
    fn new(info: &Info, parts: &Parts) -> Result<Clients, Error> {
        let pool = match info.trusted_ca_file.as_str() {
            "" => Pool::system(),
            file => Pool::read(file)?,
        };
        let provider = Arc::clone(&parts.provider);
        let algorithms = provider.signature_verification_algorithms;
        let chains = match pool.is_empty() {
            true => None,
            false => {
                Some(chains(&pool.roots, &provider).map_err(|error| Error::Certificate(error.to_string()))?)
            }
        };
        Ok(Clients { pool, chains, provider, algorithms, demands: Demands::of(info, true)? })
    }

    /// What verifies chains up to these authorities; nothing if there are none.
    fn chains_to(&self, roots: &Arc<RootCertStore>) -> Option<Arc<dyn ClientCertVerifier>> {
        match Arc::ptr_eq(roots, &self.pool.roots) {
            true => self.chains.clone(),
            false => chains(roots, &self.provider).ok(),
        }
    }
}

fn chains(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()
}

/// The verification of one handshake.
#[derive(Debug)]
struct ClientVerifier {
    clients: Arc<Clients>,
    seen: Seen,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.chains.as_deref().map_or(&[], ClientCertVerifier::root_hint_subjects)
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let look = Look { leaf, rest, now, seen: &self.seen };
        let Clients { pool, demands, .. } = &*self.clients;
        look.judge(pool, CLIENT_AUTH, demands, None, || {
            pool.judge(look.moment(), CLIENT_AUTH, rest.len(), |roots, between| {
                match self.clients.chains_to(roots) {
                    Some(chains) => chains.verify_client_cert(leaf, &rest[..between], now).map(drop),
                    None => Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)),
                }
            })
        })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.clients.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.clients.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.algorithms.supported_schemes()
    }
}

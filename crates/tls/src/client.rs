//! The side that connects.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::SERVER_AUTH;
use crate::suites::Parts;
use crate::verify::{Demands, Look};
use crate::watched::Watched;
use crate::{Error, Info, Pair, Pool, Seen};

/// Connects. May be shared.
#[derive(Debug)]
pub struct Client {
    parts: Parts,
    own: Option<Watched<Pair>>,
    servers: Arc<Servers>,
    alpn: Vec<Vec<u8>>,
}

/// One handshake.
#[derive(Debug)]
pub struct Dialing {
    /// What the library is to do it with.
    pub config: Arc<ClientConfig>,
    /// Whom to ask for.
    pub name: ServerName<'static>,
    /// What came of it.
    pub seen: Seen,
}

impl Client {
    /// Reads and checks everything that the handshakes will need. A side that dials needs no certificate of its own.
    /// `protocols`: those that it names in its hello, the best first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(info: &Info, protocols: &[&str]) -> Result<Client, Error> {
        let own = match info.is_empty() {
            true => None,
            false => {
                info.check()?;
                let own = match info.client_cert_file.is_empty() {
                    true => vec![info.cert_file.clone(), info.key_file.clone()],
                    false => vec![info.client_cert_file.clone(), info.client_key_file.clone()],
                };
                Some(Watched::new(own, |paths| Pair::read(&paths[0], &paths[1]))?)
            }
        };
        let pool = match info.trusted_ca_file.as_str() {
            "" if info.insecure_skip_verify => None,
            "" => Some(Pool::system()),
            file => Some(Pool::read(file)?),
        };
        let parts = Parts::of(info)?;
        let servers = Servers {
            pool: pool.filter(|_| !info.insecure_skip_verify),
            algorithms: parts.provider.signature_verification_algorithms,
            demands: Demands::of(info, false)?,
        };
        let alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Client { parts, own, servers: Arc::new(servers), alpn })
    }

    /// Begins a handshake with the server of this name or address.
    ///
    /// # Errors
    /// The name is none, or the own certificate can't be read now.
    ///
    /// # Panics
    /// Never: what could make the library refuse was tried at the start.
    pub fn begin(&self, host: &str) -> Result<Dialing, Error> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| Error::ServerName(host.to_owned()))?;
        let own = self.own.as_ref().map(Watched::get).transpose()?;
        let seen = Seen::default();
        let verifier =
            ServerVerifier { servers: Arc::clone(&self.servers), host: bare.to_owned(), seen: seen.clone() };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.parts.provider))
            .with_protocol_versions(&self.parts.versions)
            .expect("tried at the start")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Own(own.map(|pair| Arc::clone(&pair.key)))));
        config.resumption = Resumption::disabled();
        config.alpn_protocols = self.alpn.clone();
        Ok(Dialing { config: Arc::new(config), name, seen })
    }
}

/// The certificate of one handshake; shown whoever the server trusts, as Go does for etcd.
#[derive(Debug)]
struct Own(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// How servers are verified.
struct Servers {
    /// `None` where every certificate is taken.
    pool: Option<Pool>,
    algorithms: WebPkiSupportedAlgorithms,
    demands: Demands,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("demands", &self.demands).finish_non_exhaustive()
    }
}

/// The verification of one handshake.
#[derive(Debug)]
struct ServerVerifier {
    servers: Arc<Servers>,
    host: String,
    seen: Seen,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Servers { pool, algorithms, demands } = &*self.servers;
        let look = Look { leaf, rest, now, seen: &self.seen };
        match pool {
            Some(pool) => look.judge(pool, SERVER_AUTH, demands, Some(&self.host), || {
                let parsed = ParsedCertificate::try_from(leaf)?;
                pool.judge(look.moment(), SERVER_AUTH, rest.len(), |roots, between| {
                    let rest = &rest[..between];
                    verify_server_cert_signed_by_trust_anchor(&parsed, roots, rest, now, algorithms.all)
                })
            })?,
            // Go has no chain then that could hold an allowed name.
            None if demands.names_any() => look.refuse_unverified()?,
            None => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.servers.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.servers.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.servers.algorithms.supported_schemes()
    }
}

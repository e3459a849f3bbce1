//! TLS of a channel: to which endpoints, and the handshake.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::endpoint::{Endpoint, Wish};

/// What HTTP/2 is called in a handshake.
const H2: &str = "h2";

/// Which endpoints are reached with TLS, and how.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// `None` if no endpoint asks for it.
    client: Option<Arc<tls::Client>>,
    /// Those too that say nothing about it.
    is_default: bool,
}

impl Security {
    /// Reads what is needed for these endpoints. `is_default`: those that say nothing about TLS are reached with it.
    ///
    /// # Errors
    /// When a file is missing or none.
    pub fn new(endpoints: &[Endpoint], info: &tls::Info, is_default: bool) -> Result<Security, tls::Error> {
        // Files are read, and found missing, also where no endpoint needs them: as in etcdctl.
        let is_needed = is_default || endpoints.iter().any(|endpoint| endpoint.security() == Wish::Secure);
        let client = if is_needed { Some(Arc::new(tls::Client::new(info, &[H2])?)) } else { None };
        Ok(Security { client, is_default })
    }

    /// The side that connects, if this endpoint is reached with TLS.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Option<&tls::Client> {
        self.client.as_deref().filter(|_| endpoint.is_secure(self.is_default))
    }
}

/// Does the handshake.
///
/// # Errors
/// Its reason, as gRPC's Go client words it.
pub(crate) async fn secure<S>(client: &tls::Client, name: &str, stream: S) -> Result<TlsStream<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |why: String| format!("authentication handshake failed: {why}");
    let dialing = client.begin(name).map_err(|error| failed(error.to_string()))?;
    let connected = TlsConnector::from(dialing.config).connect(dialing.name, stream).await;
    let stream = connected.map_err(|error| failed(dialing.seen.reason(&error)))?;
    if stream.get_ref().1.alpn_protocol() != Some(H2.as_bytes()) {
        let text = "credentials: cannot check peer: missing selected ALPN property. If you upgraded from a \
                    grpc-go version earlier than 1.67, your TLS connections may have stopped working due to ALPN \
                    enforcement. For more details, see: https://github.com/grpc/grpc-go/issues/434";
        return Err(failed(text.to_owned()));
    }
    Ok(stream)
}

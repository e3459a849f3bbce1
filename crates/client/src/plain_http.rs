//! One question by HTTP/1: what a server shows beside its API, as `/metrics`.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::channel::in_gos_words;
use crate::endpoint::Target;
use crate::{Config, Deadline, Endpoint, Error};

/// What HTTP/1 is called in a handshake.
const HTTP1: &str = "http/1.1";

/// Asks an endpoint for a path by HTTP/1, with the certificates of `config`, and gives back the body of its answer. It
/// carries no token.
///
/// # Errors
/// [`Error::Http`] if there is no connection, the answer's code is not 200, or it has more than `bytes_max` bytes;
/// [`Error::Tls`] when a file is missing or none; [`Error::DeadlineExceeded`].
pub async fn http_get(
    config: &Config,
    endpoint: &Endpoint,
    path: &str,
    bytes_max: usize,
    deadline: Deadline,
) -> Result<Vec<u8>, Error> {
    deadline.bound(get(config, endpoint, path, bytes_max)).await
}

async fn get(config: &Config, endpoint: &Endpoint, path: &str, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let is_secure = endpoint.is_secure(config.tls_by_default);
    let scheme = if is_secure { "https" } else { "http" };
    let host = endpoint.authority();
    let failed = |cause: String| Error::Http(format!("Get \"{scheme}://{host}{path}\": {cause}"));
    let target = endpoint.target();
    let refused = |error| failed(format!("{target}: connect: {}", in_gos_words(&error)));
    let tls = if is_secure { Some(tls::Client::new(&config.tls, &[HTTP1])?) } else { None };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let answer = match target {
        Target::Tcp(address) => {
            let stream = connect::tcp(address).await.map_err(refused)?;
            exchange(tls.as_ref(), endpoint, stream, &request, bytes_max).await
        }
        Target::Unix(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(refused)?;
            exchange(tls.as_ref(), endpoint, stream, &request, bytes_max).await
        }
    };
    answer.and_then(|answer| body_of(&answer)).map_err(failed)
}

async fn exchange<S>(
    tls: Option<&tls::Client>,
    endpoint: &Endpoint,
    stream: S,
    request: &str,
    bytes_max: usize,
) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(tls) = tls else { return ask(stream, request, bytes_max).await };
    let dialing = tls.begin(endpoint.server_name()).map_err(|error| error.to_string())?;
    let connected = TlsConnector::from(dialing.config).connect(dialing.name, stream).await;
    ask(connected.map_err(|error| dialing.seen.reason(&error))?, request, bytes_max).await
}

/// A server closes the connection behind an answer to HTTP/1.0, and sends it in one piece.
async fn ask<S>(mut stream: S, request: &str, bytes_max: usize) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.map_err(|error| in_gos_words(&error))?;
    let mut answer = Vec::new();
    let mut bounded = stream.take(bytes_max as u64 + 1);
    bounded.read_to_end(&mut answer).await.map_err(|error| in_gos_words(&error))?;
    if answer.len() > bytes_max {
        Err(format!("the answer has more than {bytes_max} bytes"))
    } else {
        Ok(answer)
    }
}

/// # Errors
/// Without a status line, a status of 200, or all that the head announces.
fn body_of(answer: &[u8]) -> Result<Vec<u8>, String> {
    const END: &[u8] = b"\r\n\r\n";
    let malformed = || "malformed HTTP response".to_owned();
    let at = answer.windows(END.len()).position(|four| four == END).ok_or_else(malformed)?;
    let (head, body) = (str::from_utf8(&answer[..at]).map_err(|_| malformed())?, &answer[at + END.len()..]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split_once(' '));
    let (_, status) = status.ok_or_else(malformed)?;
    if !status.starts_with("200") {
        return Err(format!("unexpected status: {status}"));
    }
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        let is_length = name.eq_ignore_ascii_case("content-length");
        if is_length { value.trim().parse::<usize>().ok() } else { None }
    });
    match length {
        Some(length) if body.len() < length => Err("unexpected EOF".to_owned()),
        _ => Ok(body.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_refused() {
        for (answer, body) in [
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", Ok("ab")),
            ("HTTP/1.1 200 OK\r\n\r\na\r\n\r\nb", Ok("a\r\n\r\nb")),
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nab", Err("unexpected EOF")),
            ("HTTP/1.0 404 Not Found\r\n\r\nab", Err("unexpected status: 404 Not Found")),
            ("HTTP/1.0 200 OK\r\n", Err("malformed HTTP response")),
            ("SSH-2.0-x\r\n\r\n", Err("malformed HTTP response")),
            ("", Err("malformed HTTP response")),
        ] {
            let expected = body.map(|body| body.as_bytes().to_vec()).map_err(str::to_owned);
            assert_eq!(body_of(answer.as_bytes()), expected, "{answer:?}");
        }
    }
}

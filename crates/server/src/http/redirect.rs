//! Paths that are not written as they should be, and where Go's server sends those who ask for one.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use super::plain;

/// The way from a request for `path` as it was written to the path that is meant, if that is another: one without steps
/// up and down and without doubled slashes, and with the last slash where there is only what is in this folder.
pub(super) fn redirect(head: &Parts, path: &str, folder: Option<&str>) -> Option<Response<Full<Bytes>>> {
    if !path.starts_with('/') || head.method == Method::CONNECT {
        return None;
    }
    let clean = clean(path, folder);
    if clean == path {
        return None;
    }
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    // As Go has it, the path that was written is taken for one that is not encoded yet.
    let to = format!("{}{query}", encode(&clean));
    let body = match head.method {
        Method::GET => format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape(&to)),
        _ => String::new(),
    };
    let mut response = plain(StatusCode::TEMPORARY_REDIRECT, &body);
    let headers = response.headers_mut();
    if matches!(head.method, Method::GET | Method::HEAD) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    if let Ok(to) = HeaderValue::try_from(to) {
        headers.insert(LOCATION, to);
    }
    Some(response)
}

fn clean(path: &str, folder: Option<&str>) -> String {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if folder == Some(&clean) || (path.ends_with('/') && clean != "/") {
        clean.push('/');
    }
    clean
}

/// A path as it stands in a URL.
pub(super) fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(byte.into()),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' => {
                out.push(byte.into());
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A text in HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt as _;

    use super::*;

    /// Where a request for this is sent, and with which words.
    async fn sent(method: &str, uri: &str) -> Option<(String, String, String)> {
        let (head, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let response = redirect(&head, head.uri.path(), Some("/v3"))?;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        let header =
            |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (to, kind) = (header(LOCATION), header(CONTENT_TYPE));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Some((to, kind, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// Paths, words and types are those that etcd 3.7.1 answered with.
    #[tokio::test]
    async fn paths_are_cleaned_as_by_go() {
        for (uri, to) in [
            ("/v3", Some("/v3/")),
            ("/v3/", None),
            ("//v3/kv/range", Some("/v3/kv/range")),
            ("/v3//kv/range?a=b&c", Some("/v3/kv/range?a=b&c")),
            ("/v3/kv/../kv/./range", Some("/v3/kv/range")),
            ("/v3/kv/range", None),
            ("/v3/kv/range/", None),
            ("/health", None),
            ("/v3/kv//range/", Some("/v3/kv/range/")),
            ("/v3/kv/%72ange", None),
            ("/v3//kv/%72an%20ge", Some("/v3/kv/%2572an%2520ge")),
            ("/%2e/v3/kv/range", None),
            ("/v3%2f%2fkv/range", None),
            ("//health", Some("/health")),
            ("/v3/../..", Some("/")),
            ("//", Some("/")),
            ("*", None),
        ] {
            assert_eq!(
                sent("POST", uri).await,
                to.map(|to| (to.into(), String::new(), String::new())),
                "{uri}"
            );
        }
        let kind = "text/html; charset=utf-8";
        let body = "<a href=\"/v3/?a=b&amp;c=&#39;\">Temporary Redirect</a>.\n\n";
        let told = sent("GET", "/v3?a=b&c='").await.unwrap();
        assert_eq!(told, ("/v3/?a=b&c='".into(), kind.into(), body.into()));
        assert_eq!(sent("HEAD", "/v3").await, Some(("/v3/".into(), kind.into(), String::new())));
    }
}

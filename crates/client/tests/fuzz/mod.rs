//! A server's bytes as a plain function.
#![allow(unreachable_pub, reason = "the fuzz target takes it too")]

use std::time::Duration;

use client::{Client, Config, Deadline};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use wire::etcdserverpb::RangeRequest;

/// Asks a server that sends the first frame of `data` at once and the rest when it is asked, whatever that is, and
/// then nothing more. Answers whether that was an answer.
///
/// # Panics
/// If the call does not end by its deadline.
pub fn fuzz_answer(data: &[u8]) -> bool {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let socket = std::env::temp_dir().join(format!("quorate-hostile-{}", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let answered = runtime.block_on(async {
        let listener = UnixListener::bind(&socket).unwrap();
        let data = data.to_vec();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // A client that goes away is what most inputs lead to.
                let _ = serve(&mut stream, &data).await;
            }
        });
        let endpoint = format!("unix://{}", socket.display()).parse().unwrap();
        let client = Client::new(Config::new(vec![endpoint])).unwrap();
        let request = RangeRequest { key: "a".into(), ..RangeRequest::default() };
        let call = client.range(request, Deadline::after(Duration::from_secs(5)));
        let answer =
            tokio::time::timeout(Duration::from_secs(60), call).await.expect("the call ends by its deadline");
        server.abort();
        answer.is_ok()
    });
    let _ = std::fs::remove_file(&socket);
    answered
}

async fn serve(stream: &mut UnixStream, data: &[u8]) -> std::io::Result<()> {
    let first = data.get(..3).map_or(0, |len| 9 + u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize);
    let (first, rest) = data.split_at(first.min(data.len()));
    stream.write_all(first).await?;
    until_request(stream).await?;
    stream.write_all(rest).await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Reads the preface of HTTP/2 and frames up to the first HEADERS.
async fn until_request(stream: &mut UnixStream) -> std::io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    const HEADERS: u8 = 1;
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, ..] = head;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        stream.read_exact(&mut vec![0; len]).await?;
        if kind == HEADERS {
            return Ok(());
        }
    }
}

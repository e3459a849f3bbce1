//! A server's bytes as a plain function.
#![allow(unreachable_pub, reason = "the fuzz target takes it too")]

use std::time::Duration;

use client::{Client, Config, Deadline};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use wire::etcdserverpb::RangeRequest;

/// Asks a server that sends `data`, whatever is asked, and then nothing more. Answers whether that was an answer.
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
                let _ = stream.write_all(&data).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
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

//! A server that answers calls by a script.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use client::Config;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::{ApiError, Code};

/// What the server does with a call, in this order.
#[derive(Clone)]
pub(crate) enum Step {
    /// Sends a message.
    Say(Vec<u8>),
    /// Ends the call with this code and text.
    End(Code, &'static str),
    /// Leaves the call open.
    Wait,
    /// Breaks the connection.
    Break,
}

pub(crate) fn say(message: impl Message) -> Step {
    Step::Say(message.encode_to_vec())
}

pub(crate) fn refuse(error: ApiError) -> Step {
    Step::End(error.code(), error.text())
}

pub(crate) const DONE: Step = Step::End(Code::Ok, "");

/// A call as the server heard it.
#[derive(Clone)]
pub(crate) struct Heard {
    pub path: String,
    /// The token that it came with.
    pub token: Option<String>,
    /// Whether it came with a deadline.
    pub timed: bool,
    /// The first message.
    pub message: Bytes,
}

type Script = Arc<dyn Fn(&Heard) -> Vec<Step> + Send + Sync>;

/// How a server is reached that answers each call by this script, and the calls.
pub(crate) async fn listen(
    script: impl Fn(&Heard) -> Vec<Step> + Send + Sync + 'static,
) -> (Config, UnboundedReceiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (calls, heard) = unbounded_channel();
    let script: Script = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&script), calls.clone()));
        }
    });
    (Config::new(vec![endpoint]), heard)
}

async fn serve(stream: TcpStream, script: Script, calls: UnboundedSender<Heard>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (broken, mut breaks) = unbounded_channel();
    loop {
        tokio::select! {
            call = connection.accept() => match call {
                Some(Ok((request, respond))) => {
                    tokio::spawn(answer(request, respond, Arc::clone(&script), calls.clone(), broken.clone()));
                }
                _ => return,
            },
            _ = breaks.recv() => return,
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: Script,
    calls: UnboundedSender<Heard>,
    broken: UnboundedSender<()>,
) {
    let (head, mut body) = request.into_parts();
    let message = first_message(&mut body).await;
    let token = head.headers.get("token").map(|token| token.to_str().unwrap().to_owned());
    let timed = head.headers.contains_key("grpc-timeout");
    let heard = Heard { path: head.uri.path().to_owned(), token, timed, message };
    let steps = script(&heard);
    // A test that has ended does not listen any more.
    let _ = calls.send(heard);

    let head = Response::builder().header("content-type", "application/grpc");
    if let [Step::End(code, text), ..] = steps[..] {
        // As gRPC's servers end a call of which they have said nothing.
        let head = head.header("grpc-status", code as u32).header("grpc-message", text);
        respond.send_response(head.body(()).unwrap(), true).unwrap();
        return;
    }
    let head = head.body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    for step in steps {
        match step {
            Step::Say(message) => {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(message.len().try_into().unwrap());
                frame.put_slice(&message);
                stream.send_data(frame.freeze(), false).unwrap();
            }
            Step::End(code, text) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", (code as u32).into());
                trailers.insert("grpc-message", text.parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
            Step::Wait => std::future::pending().await,
            Step::Break => {
                broken.send(()).unwrap();
                // A stream that is dropped is reset, which would be the server's word and not a broken connection.
                std::future::pending().await
            }
        }
    }
}

/// A stream of messages may go on after it.
async fn first_message(body: &mut RecvStream) -> Bytes {
    let mut frames = BytesMut::new();
    while let Some(data) = body.data().await {
        frames.extend_from_slice(&data.unwrap());
        // A flag and a length stand before the message.
        if let Some(&[_, a, b, c, d]) = frames.first_chunk() {
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            if frames.len() >= 5 + len {
                return frames.freeze().slice(5..5 + len);
            }
        }
    }
    Bytes::new()
}

//! A client's bytes as plain functions: ordinary tests feed them, and cargo-fuzz. The clock is paused, so that no
//! input waits; each has a member of its own, so that each can be run again alone.

use std::cell::RefCell;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use server::LocalFuture;
use server::grpc::{Front, GrpcConfig, serve};
use server::http::{self, Alarm, Health, Versions};
use server::listen::{Protocol, Role, Stream, closing};
use server::log;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{LocalSet, spawn_local};

use super::FakeMember;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PIPE_BYTES: usize = 64 << 20;

/// What [`fuzz_http2`] offers as the path of a call.
const PATHS: [&str; 8] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Cluster/MemberList",
    "/grpc.health.v1.Health/Watch",
    "/etcdserverpb.Watch/Watch",
];

fn on_paused_clock(test: impl Future<Output = ()>) {
    log::set(log::Level::Fatal, log::Format::Json);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Speaks HTTP/2 to the front end. Whatever the bytes are, it answers or closes.
///
/// The first byte says how they are to be taken: its lowest bit, as they are (behind the preface), or as a row of
/// frames, see [`frames`]; the rest, in pieces of which size they come.
///
/// # Panics
/// If the connection panics or does not end.
pub fn fuzz_http2(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let mut bytes = PREFACE.to_vec();
    if how & 1 == 0 {
        bytes.extend_from_slice(data);
    } else {
        bytes.extend(frames(data));
    }
    let piece = match how >> 1 {
        0 => bytes.len(),
        size => usize::from(size) * 7,
    };
    on_paused_clock(async move {
        let (_member, lane, driver) = FakeMember::new();
        spawn_local(driver);
        let (mut ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let served = spawn_local(serve(theirs, Front::new(lane, GrpcConfig::default()), None));
        for part in bytes.chunks(piece) {
            if ours.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = ours.shutdown().await;
        let _ = ours.read_to_end(&mut Vec::new()).await;
        let ended = tokio::time::timeout(Duration::from_secs(7 * 24 * 60 * 60), served).await;
        ended.expect("the connection does not end").expect("the connection panicked");
    });
}

/// Frames whose lengths are right. Each is four bytes, type, flags, stream and length, and then the payload. A type
/// from 16 on begins a call instead (to one of [`PATHS`]), with the payload as its message: as it is, or (bit 3)
/// compressed, and then spoilt if it begins with a high byte.
fn frames(mut data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut push = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        out.extend_from_slice(payload);
    };
    push(4, 0, 0, &[]);
    while let [kind, flags, stream, length, rest @ ..] = data {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        if *kind < 16 {
            push(*kind, *flags, *stream, payload);
            continue;
        }
        // POST, http, and the rest as literals without indexing.
        let mut block = vec![0x83, 0x86];
        for (name, value) in [(4, PATHS[usize::from(kind & 7)]), (1, "x"), (31, "application/grpc")] {
            block.extend(if name < 15 { vec![name] } else { vec![15, name - 15] });
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        }
        let mut message = payload.to_vec();
        let is_compressed = kind & 8 != 0;
        if is_compressed {
            block.extend_from_slice(b"\x00\x0dgrpc-encoding\x04gzip");
            message = gzipped(payload);
            if let Some(&first) = payload.first().filter(|first| **first > 0x7f) {
                let at = usize::from(first) % message.len();
                message[at] = first;
            }
        }
        push(1, 4, *stream, &block);
        let prefix = [&[u8::from(is_compressed)][..], &(message.len() as u32).to_be_bytes()].concat();
        push(0, *flags, *stream, &[prefix, message].concat());
    }
    out
}

fn gzipped(message: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(message).unwrap();
    writer.finish().unwrap()
}

struct Well(RefCell<u64>);

impl Health for Well {
    fn alarms(&self) -> Vec<Alarm> {
        vec![Alarm::NoSpace]
    }

    fn has_leader(&self) -> bool {
        true
    }

    fn read(&self, _linearizable: bool) -> LocalFuture<'_, Result<(), String>> {
        *self.0.borrow_mut() += 1;
        Box::pin(async { Ok(()) })
    }

    fn is_learner(&self) -> bool {
        false
    }

    fn versions(&self) -> Versions {
        Versions { cluster: Some("3.7.0".into()), storage: None }
    }
}

/// Speaks to a port whose first bytes decide, over a real socket; the first byte says, by its lowest bit, to which.
/// Answers what the server sent if it took the connection for HTTP/1.
///
/// # Panics
/// If the connection panics or does not end.
pub fn fuzz_port(data: &[u8]) -> Vec<u8> {
    let Some((&how, data)) = data.split_first() else { return Vec::new() };
    // More does not fit a socket's buffer unread; it would only make the test wait for itself.
    let data = &data[..data.len().min(64 << 10)];
    let role = if how & 1 == 0 { Role::Client } else { Role::Peer };
    let mut answer = Vec::new();
    on_paused_clock(async {
        let (mut stream, mut client) = Stream::pair().unwrap();
        let (_stop, closing) = closing();
        client.write_all(data).await.unwrap();
        client.shutdown().await.unwrap();
        match stream.sniff().await.unwrap() {
            Protocol::Http2 => assert!(data.starts_with(PREFACE)),
            Protocol::Nothing => assert!(data.is_empty()),
            Protocol::Tls => assert_eq!(data[0], 22),
            Protocol::Http1 => {
                let (request_timeout, any) = (Duration::from_secs(7), http::Allowed::Any);
                let site = http::Site { request_timeout, origins: any.clone(), hosts: any, profiles: true };
                let parties = http::Parties {
                    role,
                    health: Rc::new(Well(RefCell::new(0))),
                    site: Arc::new(site),
                    gateway: None,
                    remote: None,
                    certified: None,
                };
                let served = spawn_local(http::serve(stream, parties, closing));
                // A reset in place of an end is fine.
                let _ = client.read_to_end(&mut answer).await;
                let ended = tokio::time::timeout(Duration::from_secs(24 * 60 * 60), served).await;
                ended.expect("the connection does not end").expect("the connection panicked");
            }
        }
    });
    answer
}

//! The peer thread: a current-thread runtime with the transport and all connections of peers.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, LocalSet};

use super::Settings;
use super::dial::NetDial;
use super::host::Host;
use super::transport::{Handle, Transport};
use crate::listen::{Closing, Listener, Protocol, Stream, closing};
use crate::log;

/// A connection that sends nothing for this long before its first request is closed.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(300);
/// How soon a listener that failed is asked again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long requests in flight may take once the thread is to end.
const GRACE: Duration = Duration::from_secs(1);

/// The running thread.
pub struct PeerThread {
    handle: Handle,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl PeerThread {
    /// Starts the thread and serves peers at once. `handle` is the one that the member's threads have; `host` is called on
    /// the thread, where it may start local tasks; `seed` is entropy.
    ///
    /// # Errors
    /// When the thread or its runtime can't be made.
    pub fn start(
        handle: Handle,
        settings: Settings,
        host: impl FnOnce() -> Arc<dyn Host> + Send + 'static,
        listeners: Vec<Listener>,
        seed: u64,
    ) -> io::Result<PeerThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, closing) = closing();
        let (taken, local) = (handle.clone(), handle.clone());
        let thread = std::thread::Builder::new().name("peer".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, async move {
                let dial = Rc::new(NetDial::new(settings.security.clone()));
                let transport = Transport::start(&local, settings, host(), dial, seed);
                let mut serving = JoinSet::new();
                for listener in listeners {
                    serving.spawn_local(accept(listener, transport.clone(), closing.clone()));
                }
                transport.run().await;
                let _ =
                    tokio::time::timeout(GRACE, async { while serving.join_next().await.is_some() {} }).await;
            });
            // A name that is being looked up, or a hash, is nobody's any more, and may take long. A snapshot that comes is
            // not at work where the member is opened anew: none is received until then.
            runtime.shutdown_background();
        })?;
        Ok(PeerThread { handle: taken, stop, thread })
    }

    /// Cuts all connections and returns when the thread is gone.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        self.handle.stop();
        // A panic has ended the process already.
        let _ = self.thread.join();
    }
}

async fn accept(listener: Listener, transport: Transport, mut closing: Closing) {
    let connections_max = listener.room().connections_max;
    let listener = match listener.into_async() {
        Ok(listener) => listener,
        Err(error) => {
            log::error!("listener failed", "error" => crate::go_error(&error));
            return;
        }
    };
    let mut connections = JoinSet::new();
    let mut silent = Silent { row: VecDeque::new(), connections_max };
    loop {
        if connections.len() >= connections_max {
            silent.cut_oldest();
            tokio::select! {
                () = closing.wait() => break,
                _ = connections.join_next() => continue,
            }
        }
        let accepted = tokio::select! {
            () = closing.wait() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(socket) => {
                let (security, transport, closing) =
                    (listener.security().cloned(), transport.clone(), closing.clone());
                let has_asked = Rc::new(Cell::new(false));
                let asked = Rc::clone(&has_asked);
                let task = connections.spawn_local(async move {
                    let stream = match security {
                        Some(security) => security.handshake(socket).await,
                        None => Some(Stream::idle(socket)),
                    };
                    if let Some(mut stream) = stream
                        && stream.attach().is_ok()
                    {
                        connect(stream, transport, closing, &asked).await;
                    }
                });
                silent.add(has_asked, task);
            }
            Err(error) => {
                log::warn!("accept failed", "address" => listener.address(), "error" => crate::go_error(&error));
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Connections on which nothing has been asked yet, the oldest first: a peer asks at once, so these make room for others.
struct Silent {
    row: VecDeque<(Rc<Cell<bool>>, AbortHandle)>,
    connections_max: usize,
}

impl Silent {
    fn add(&mut self, has_asked: Rc<Cell<bool>>, task: AbortHandle) {
        // Those that ask, or end, are still in the row.
        if self.row.len() >= 2 * self.connections_max {
            self.row.retain(|(has_asked, task)| !has_asked.get() && !task.is_finished());
        }
        self.row.push_back((has_asked, task));
    }

    fn cut_oldest(&mut self) {
        while let Some((has_asked, task)) = self.row.pop_front() {
            if !has_asked.get() && !task.is_finished() {
                return task.abort();
            }
        }
    }
}

async fn connect(mut stream: Stream, transport: Transport, mut closing: Closing, asked: &Cell<bool>) {
    let first = tokio::select! {
        first = tokio::time::timeout(FIRST_BYTES_TIMEOUT, stream.sniff()) => first,
        () = closing.wait() => return,
    };
    if let Ok(Ok(Protocol::Http1 | Protocol::Http2)) = first {
        transport.serve_telling(stream, closing, || asked.set(true)).await;
    }
}

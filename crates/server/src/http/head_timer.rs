//! How long a request's head may take. As in Go the time runs from the head's first byte on: a connection that is kept may
//! rest for as long as its client likes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// Whether anything has been read since a head is waited for: the connection says so, and the timer asks. Both are of one
/// task.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<AtomicBool>);

impl Heard {
    pub(super) fn set(&self, heard: bool) {
        self.0.store(heard, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// hyper's timer of heads, which hyper starts as soon as it waits for one.
pub struct HeadTimer {
    /// Of the connection.
    pub heard: Heard,
    /// Whether the connection may rest; else the time runs while nothing comes, too.
    pub may_rest: bool,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.heard.set(!self.may_rest);
        Box::pin(HeadSleep { heard: self.heard.clone(), duration, running: None })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// One head's time. hyper asks for it whenever it has read and the head is not there yet.
struct HeadSleep {
    heard: Heard,
    duration: Duration,
    running: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.running.is_none() && !self.heard.get() {
            // Whoever is to read is woken by what comes.
            return Poll::Pending;
        }
        let duration = self.duration;
        self.running.get_or_insert_with(|| Box::pin(tokio::time::sleep(duration))).as_mut().poll(cx)
    }
}

impl Sleep for HeadSleep {}

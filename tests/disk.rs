//! A disk that a test makes slow: each sync of a member takes longer, or never ends.
//!
//! The member itself knows nothing of it. Its threads that wait for a disk are traced (ptrace), and held where they ask the
//! system to sync, which is what a disk does that takes its time; all others go on. A tracer is a thread here for each of
//! those there, since only the thread that traces may ask anything of the traced one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{SYS_fdatasync, SYS_fsync};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The threads of a member that write to its disk.
const WRITERS: [&str; 4] = ["wal", "revlog", "files", "merge"];
/// How soon it is seen that a traced thread has stopped, or is to be let go.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A member's disk; dropping it lets the member go on as fast as it can.
pub struct SlowDisk {
    shared: Arc<Shared>,
    tracers: Vec<JoinHandle<()>>,
}

struct Shared {
    pid: Pid,
    /// How much longer a sync takes; `None` for one that never ends.
    delay: Option<Duration>,
    /// Syncs that were held.
    held: AtomicU64,
    released: AtomicBool,
}

impl SlowDisk {
    /// Makes each sync of the process take so much longer, from now on; for ever without a `delay`.
    ///
    /// # Panics
    /// If its threads cannot be traced.
    pub(crate) fn start(pid: Pid, delay: Option<Duration>) -> SlowDisk {
        let (held, released) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { pid, delay, held, released });
        let mut tracers = Vec::new();
        for thread in threads(pid).into_iter().filter(|(name, _)| WRITERS.contains(&name.as_str())) {
            let (shared, (ready, begun)) = (shared.clone(), std::sync::mpsc::channel());
            tracers.push(std::thread::spawn(move || {
                let traced = trace(thread.1, &shared, &ready);
                // Without the process there is nothing to trace.
                assert!(matches!(traced, Ok(()) | Err(Errno::ESRCH | Errno::ECHILD)), "{traced:?}");
            }));
            begun.recv().expect("threads of our own processes can be traced");
        }
        assert!(!tracers.is_empty(), "no thread of it writes to a disk");
        SlowDisk { shared, tracers }
    }

    /// Syncs that were held so far.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.shared.released.store(true, Ordering::SeqCst);
        for tracer in self.tracers.drain(..) {
            let ended = tracer.join();
            // One failure a test is enough.
            assert!(ended.is_ok() || std::thread::panicking(), "a tracer failed");
        }
    }
}

/// The names and ids of a process's threads.
fn threads(pid: Pid) -> Vec<(String, Pid)> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let threads = folder.filter_map(|entry| {
        let path = entry.ok()?.path();
        let id = path.file_name()?.to_str()?.parse().ok()?;
        // A thread may end meanwhile.
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        Some((name.trim_end().to_owned(), Pid::from_raw(id)))
    });
    threads.collect()
}

/// Traces one thread until it ends or is let go; says when it has stopped for the first time.
fn trace(thread: Pid, shared: &Shared, ready: &Sender<()>) -> nix::Result<()> {
    ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD)?;
    // It stops at once, and from then on at both ends of each system call.
    ptrace::interrupt(thread)?;
    let (mut is_in_sync, mut is_interrupted) = (false, false);
    loop {
        let is_released = shared.released.load(Ordering::SeqCst);
        let signal = match look(thread)? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Ok(()),
            WaitStatus::StillAlive => {
                if is_released && !is_interrupted {
                    is_interrupted = true;
                    ptrace::interrupt(thread)?;
                }
                std::thread::sleep(LOOK_INTERVAL);
                continue;
            }
            WaitStatus::PtraceSyscall(_) if is_sync(shared.pid, thread) => {
                is_in_sync = !is_in_sync;
                if is_in_sync && !hold(thread, shared)? {
                    return Ok(());
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => None,
        };
        let _ = ready.send(());
        if is_released {
            return ptrace::detach(thread, signal);
        }
        ptrace::syscall(thread, signal)?;
    }
}

fn look(thread: Pid) -> nix::Result<WaitStatus> {
    waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))
}

/// Whether a thread that has stopped is about to sync, or has just done so.
fn is_sync(pid: Pid, thread: Pid) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| [SYS_fdatasync, SYS_fsync].contains(&number))
}

/// Holds a thread that has stopped; false if it has ended meanwhile.
fn hold(thread: Pid, shared: &Shared) -> nix::Result<bool> {
    shared.held.fetch_add(1, Ordering::SeqCst);
    let began = Instant::now();
    while !shared.released.load(Ordering::SeqCst) && shared.delay.is_none_or(|delay| began.elapsed() < delay)
    {
        if look(thread)? != WaitStatus::StillAlive {
            return Ok(false);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(true)
}

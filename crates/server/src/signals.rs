//! The signals that end the process, and ending by them.
//!
//! SIGINT and SIGTERM are blocked in every thread and taken by one that waits for them, so that no code ever runs
//! inside a handler. A process that was asked to end dies by that same signal, as etcd does: its parent sees why.
//! Signals that mean nothing to Go's runtime mean nothing here.

#![allow(unsafe_code, reason = "setting the disposition of a signal")]

use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};

fn endings() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// Signals that would end the process, and that an operator's scripts may send to every daemon.
const MEANINGLESS: [Signal; 3] = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM];

/// Blocks the signals in this thread and all that it starts later. Call it before there are others.
pub fn block() {
    endings().thread_block().expect("the mask of this thread can be set");
    for meaningless in MEANINGLESS {
        // SAFETY: to ignore a signal runs no code of ours.
        unsafe { signal(meaningless, SigHandler::SigIgn) }.expect("the signal can be ignored");
    }
}

/// Starts the thread that waits for one signal and hands it over.
///
/// # Errors
/// When no thread can be started.
pub fn watch(on_signal: impl FnOnce(Signal) + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Ok(signal) = endings().wait() {
            on_signal(signal);
        }
    })?;
    Ok(())
}

/// What etcd calls a signal in its log.
pub fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::SIGINT => "interrupt",
        Signal::SIGTERM => "terminated",
        other => other.as_str(),
    }
}

/// Ends the process by the signal; process 1, which the kernel does not let die so, exits with this code.
pub fn end_by(ending: Signal, as_process_1: i32) -> ! {
    if std::process::id() != 1 {
        // SAFETY: the default disposition runs no code of ours; nothing else in the process sets one of this signal.
        let _ = unsafe { signal(ending, SigHandler::SigDfl) };
        let _ = endings().thread_unblock();
        let _ = raise(ending);
    }
    std::process::exit(as_process_1)
}

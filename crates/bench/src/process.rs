//! What processes cost: CPU time and memory, the server's from /proc, our own from getrusage.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// Processes that are measured from outside, as one: a server's members.
#[derive(Clone, Debug)]
pub struct Observed {
    pids: Vec<u32>,
}

/// Resident memory, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident_bytes: u64,
    /// The most since the process began, or since `reset_peak`.
    pub peak_bytes: u64,
}

impl Observed {
    /// # Errors
    /// When there is no such process.
    pub fn new(pid: u32) -> anyhow::Result<Observed> {
        Observed::all(vec![pid])
    }

    /// All of these together.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn all(pids: Vec<u32>) -> anyhow::Result<Observed> {
        let observed = Observed { pids };
        observed.cpu()?;
        Ok(observed)
    }

    /// User and system time of all their threads, the finished ones included; a clock tick (10 ms) exact for each.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for pid in &self.pids {
            let stat = read(*pid, "stat")?;
            ticks += stat_ticks(&stat).with_context(|| format!("unexpected /proc/{pid}/stat"))?;
        }
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Their sums; of the peaks too, although they need not have been at one time.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mut memory = Memory { resident_bytes: 0, peak_bytes: 0 };
        for pid in &self.pids {
            let status = read(*pid, "status")?;
            let field = |name| status_kib(&status, name).with_context(|| format!("no {name} of {pid}"));
            memory.resident_bytes += field("VmRSS:")? << 10;
            memory.peak_bytes += field("VmHWM:")? << 10;
        }
        Ok(memory)
    }

    /// Lets the peak count from now on; where that is not allowed it goes on counting from the start.
    pub fn reset_peak(&self) {
        for pid in &self.pids {
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// User and system time of this process so far.
///
/// # Errors
/// Never on Linux.
pub fn own_cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let seconds = user.tv_sec() + system.tv_sec();
    let micros = user.tv_usec() + system.tv_usec();
    Ok(Duration::from_secs(seconds as u64) + Duration::from_micros(micros as u64))
}

/// utime and stime; the command's name before them may hold spaces and brackets.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_kib(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_strange_name() {
        let stat = "42 (et) cd (x) S 1 42 42 0 -1 4194560 9 0 0 0 700 33 5 6 20 0 12 0 999 0";
        assert_eq!(stat_ticks(stat), Some(733));
        assert_eq!(stat_ticks("42 (etcd) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_kib() {
        let status = "Name:\tetcd\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!((status_kib(status, "VmHWM:"), status_kib(status, "VmSwap:")), (Some(20480), None));
    }

    #[test]
    fn this_process_can_be_observed() {
        let this = Observed::new(std::process::id()).expect("this process");
        let memory = this.memory().expect("its memory");
        assert!(memory.resident_bytes > 0 && memory.peak_bytes >= memory.resident_bytes, "{memory:?}");
        assert!(Observed::new(u32::MAX).is_err());
        let twice = Observed::all(vec![std::process::id(); 2]).expect("this process").memory().expect("both");
        assert!(twice.peak_bytes >= memory.resident_bytes * 2, "{twice:?} is less than twice {memory:?}");
    }
}

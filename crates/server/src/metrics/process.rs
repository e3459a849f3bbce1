//! What the system knows of this process: `process_*` and `os_fd_*`, read from `/proc` as Prometheus' libraries do.

use std::fs;

use super::families::Id;
use super::page::Page;

/// Clock ticks a second in what Linux shows of processes, whatever the kernel's own are.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds what can be read; what cannot is not on the page.
pub(super) fn add(page: &mut Page) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::read) {
        page.number(Id::ProcessCpu, stat.cpu_ticks / TICKS_PER_SECOND);
        page.number(Id::ProcessVirtual, stat.virtual_bytes);
        page.number(Id::GoThreads, stat.threads);
        if let Some(booted) = fs::read_to_string("/proc/stat").ok().and_then(|stat| field(&stat, "btime ")) {
            page.number(Id::ProcessStart, booted + stat.start_ticks / TICKS_PER_SECOND);
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = field(&status, "VmRSS:") {
        page.number(Id::ProcessResident, kib * 1024.0);
    }
    if let Some(open) = crate::listen::open_descriptors() {
        let open = open as f64;
        page.number(Id::ProcessOpenFds, open);
        page.number(Id::FdUsed, open);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(limit) = field(&limits, "Max open files ") {
        page.number(Id::ProcessMaxFds, limit);
        page.number(Id::FdLimit, limit);
    }
    if let Some(limit) = field(&limits, "Max address space ") {
        page.number(Id::ProcessVirtualMax, limit);
    }
    let net = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    for (id, name) in [(Id::ProcessReceived, "InOctets"), (Id::ProcessSent, "OutOctets")] {
        if let Some(bytes) = in_columns(&net, "IpExt:", name) {
            page.number(id, bytes);
        }
    }
}

/// Fields of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
}

impl Stat {
    fn read(text: &str) -> Option<Stat> {
        // The program's name, in parentheses, may have anything in it.
        let (_, rest) = text.rsplit_once(')')?;
        // The first of these is field 3 of proc(5).
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_ticks: number(14)? + number(15)?,
            threads: number(20)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
        })
    }
}

/// The number behind `name` at the beginning of a line. Without a limit it is as large as can be, as in Go's library.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

/// The number of a name in two rows that begin with `row`, one of names and one of numbers.
fn in_columns(text: &str, row: &str, name: &str) -> Option<f64> {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(row));
    let (names, numbers) = (rows.next()?, rows.next()?);
    let place = names.split_whitespace().position(|known| known == name)?;
    numbers.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let stat = "1234 (a) b) S 1 2 3 4 5 6 7 8 9 10 700 50 0 0 20 0 12 0 5000 123456 99 more";
        let read = Stat { cpu_ticks: 750.0, threads: 12.0, start_ticks: 5000.0, virtual_bytes: 123_456.0 };
        assert_eq!(Stat::read(stat), Some(read));
        assert_eq!(Stat::read("1234 (a) S 1"), None);
        let limits = "Max open files            1024                 4096                 files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(field(limits, "Max open files "), Some(1024.0));
        assert_eq!(field(limits, "Max address space "), Some(1.844_674_407_370_955_2e19));
        let net = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets\nIpExt: 0 77\n";
        assert_eq!(in_columns(net, "IpExt:", "InOctets"), Some(77.0));
        assert_eq!(in_columns(net, "IpExt:", "OutOctets"), None);
    }
}

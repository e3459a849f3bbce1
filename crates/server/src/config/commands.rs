//! `etcd gateway` and `etcd grpc-proxy`: known by name, with their flags, and refused with the reason.

use std::fmt::Write as _;

/// A command beside the server.
struct Command {
    name: &'static str,
    /// What it is, in etcd's words.
    about: &'static str,
    start: &'static str,
    /// Why it does not work here.
    reason: &'static str,
    /// Flag, what it takes, what it means.
    flags: &'static [(&'static str, &'static str, &'static str)],
}

const COMMANDS: [Command; 2] = [
    Command {
        name: "gateway",
        about: "gateway related command",
        start: "start the gateway",
        reason: "it hands TCP connections on to members, which any TCP load balancer does too; clients and etcdctl take \
                 several endpoints themselves",
        flags: &[
            ("discovery-srv", "string", "DNS domain whose SRV records name the members"),
            ("discovery-srv-name", "string", "suffix of the SRV service name"),
            ("endpoints", "strings", "the members' client addresses (default [127.0.0.1:2379])"),
            ("insecure-discovery", "", "take SRV records of http members"),
            ("listen-addr", "string", "where it listens (default \"127.0.0.1:23790\")"),
            ("retry-delay", "duration", "wait before a member that failed is tried again (default 1m0s)"),
            ("trusted-ca-file", "string", "CA that members found by SRV records are verified with"),
        ],
    },
    Command {
        name: "grpc-proxy",
        about: "grpc-proxy related command",
        start: "start the grpc proxy",
        reason: "it joins the watches and leases of many clients into few; a member here serves them itself at little cost",
        flags: &[
            ("advertise-client-url", "string", "URL to register (default \"127.0.0.1:23790\")"),
            ("auto-tls", "", "make the proxy's certificate"),
            ("cacert", "string", "CA that members are verified with"),
            ("cert", "string", "certificate shown to members"),
            ("cert-file", "string", "the proxy's certificate"),
            ("client-crl-file", "string", "revocation list for client certificates"),
            ("data-dir", "string", "folder of certificates that are made (default \"default.proxy\")"),
            ("debug", "", "write debug lines"),
            ("dial-keepalive-time", "duration", "idle time before members are pinged (default 0s)"),
            ("dial-keepalive-timeout", "duration", "wait for the answer (default 20s)"),
            ("discovery-srv", "string", "DNS domain whose SRV records name the members"),
            ("discovery-srv-name", "string", "suffix of the SRV service name"),
            ("enable-pprof", "", "serve /debug/pprof"),
            ("endpoints", "strings", "the members' client addresses (default [127.0.0.1:2379])"),
            (
                "endpoints-auto-sync-interval",
                "duration",
                "how often members are asked for others (default 0s)",
            ),
            ("experimental-enable-grpc-logging", "", "log every request"),
            ("experimental-leasing-prefix", "string", "cache reads under leases kept at this prefix"),
            ("experimental-serializable-ordering", "", "no serializable read older than one before"),
            ("grpc-keepalive-interval", "duration", "idle time before clients are pinged (default 2h0m0s)"),
            ("grpc-keepalive-min-time", "duration", "clients that ping more often are cut (default 5s)"),
            ("grpc-keepalive-timeout", "duration", "wait for the answer (default 20s)"),
            ("insecure-discovery", "", "take SRV records of http members"),
            ("insecure-skip-tls-verify", "", "do not verify members"),
            ("key", "string", "key shown to members"),
            ("key-file", "string", "the proxy's key"),
            ("listen-addr", "string", "where it listens (default \"127.0.0.1:23790\")"),
            ("listen-cipher-suites", "strings", "TLS 1.2 cipher suites"),
            ("max-concurrent-streams", "uint32", "streams of one client (default 4294967295)"),
            ("max-recv-bytes", "int", "longest answer (default 2147483647)"),
            ("max-send-bytes", "int", "longest request (default 1572864)"),
            ("metrics-addr", "string", "URL for metrics and probes"),
            ("namespace", "string", "put before every key"),
            ("permit-without-stream", "", "ping members without calls too"),
            ("resolver-prefix", "string", "where the proxy registers itself"),
            ("resolver-ttl", "int", "lease of that, in seconds"),
            ("self-signed-cert-validity", "uint", "years of a certificate that is made (default 1)"),
            ("tls-max-version", "string", "highest TLS version"),
            ("tls-min-version", "string", "lowest TLS version (default \"TLS1.2\")"),
            ("trusted-ca-file", "string", "CA for client certificates"),
        ],
    },
];

/// What one of these commands prints: its help, on stdout, or why it does not run.
///
/// # Errors
/// The reason, where it is to start.
pub fn answer(args: &[String]) -> Option<Result<String, String>> {
    let (name, rest) = args.split_first()?;
    let command = COMMANDS.iter().find(|command| command.name == name)?;
    let asks = |word: &String| matches!(word.as_str(), "-h" | "--help");
    Some(match rest.iter().position(|word| word == "start") {
        // As in etcd: without a command of its own it shows its help.
        None => Ok(command.help()),
        Some(_) if rest.iter().any(asks) => Ok(command.help_of_start()),
        Some(_) => Err(format!(
            "etcd {name} is not yet supported by Quorate {}: {}",
            wire::version::QUORATE,
            command.reason
        )),
    })
}

impl Command {
    fn help(&self) -> String {
        let Command { name, about, start, .. } = self;
        format!(
            "{about} (not yet supported)\n\nUsage:\n  etcd {name} [command]\n\nAvailable Commands:\n  start       {start}\n\n\
             Flags:\n  -h, --help   help for {name}\n\nUse \"etcd {name} [command] --help\" for more information about a \
             command.\n"
        )
    }

    fn help_of_start(&self) -> String {
        let Command { name, start, reason, flags, .. } = self;
        let mut out = format!(
            "{start} (not yet supported: {reason})\n\nUsage:\n  etcd {name} start [flags]\n\nFlags:\n"
        );
        let left = |flag: &str, kind: &str| format!("      --{flag} {kind}").trim_end().to_owned();
        let width = flags.iter().map(|(flag, kind, _)| left(flag, kind).len()).max().unwrap_or_default();
        for (flag, kind, help) in *flags {
            let _ = writeln!(out, "{:width$}   {help}", left(flag, kind));
        }
        let _ = writeln!(out, "{:width$}   help for start", "  -h, --help");
        out
    }
}

//! `etcd gateway` and `etcd grpc-proxy` with their flags, after the rules of Go's cobra. The latter is refused with the
//! reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::value::{Kind, Value};
use super::{duration, quote};
use crate::tcp_proxy::Settings;

/// A command beside the server.
struct Command {
    name: &'static str,
    /// What it is, in etcd's words.
    about: &'static str,
    start: &'static str,
    /// Why it does not work here, if it does not.
    reason: Option<&'static str>,
    /// Flag, what it takes, what it means.
    flags: &'static [(&'static str, &'static str, &'static str)],
}

const COMMANDS: [Command; 2] = [
    Command {
        name: "gateway",
        about: "gateway related command",
        start: "start the gateway",
        reason: None,
        flags: &[
            ("discovery-srv", "string", "DNS domain whose SRV records name the members (not yet supported)"),
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
        reason: Some(
            "it joins the watches and leases of many clients into few; a member here serves them itself at little cost",
        ),
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

/// What a command line with one of these commands asks for.
pub enum Called {
    /// A page, on stdout.
    Help(String),
    /// Nothing that can be done: the reason, on stderr.
    Refused(String),
    /// A gateway.
    Gateway(Settings),
}

/// What the words after the program's name ask for, if they begin with one of these commands.
pub fn called(args: &[String]) -> Option<Called> {
    let (name, rest) = args.split_first()?;
    let command = COMMANDS.iter().find(|command| command.name == name)?;
    Some(command.called(rest).unwrap_or_else(Called::Refused))
}

/// The values of flags, by their names; a list that is given again grows.
type Given = BTreeMap<&'static str, Value>;

impl Command {
    /// # Errors
    /// What is wrong with the flags, with the usage behind it, as cobra prints it.
    fn called(&self, words: &[String]) -> Result<Called, String> {
        let Some(at) = first_word(words).filter(|at| words[*at] == "start") else {
            // As in etcd: without a command of its own it shows its help.
            return match words.iter().find(|word| word.starts_with("--") && *word != "--help") {
                Some(word) => {
                    let name = word.split('=').next().unwrap_or_default();
                    Err(wrong(&format!("unknown flag: {name}"), &self.usage()))
                }
                None => Ok(Called::Help(self.help())),
            };
        };
        let flags: Vec<&String> = words[..at].iter().chain(&words[at + 1..]).collect();
        if let Some(reason) = self.reason {
            let asks = |word: &&&String| matches!(word.as_str(), "-h" | "--help");
            return if flags.iter().any(|word| asks(&word)) {
                Ok(Called::Help(self.help_of_start()))
            } else {
                Err(format!(
                    "etcd {} is not yet supported by Quorate {}: {reason}",
                    self.name,
                    wire::version::QUORATE
                ))
            };
        }
        match self.parse(&flags).map_err(|text| wrong(&text, &self.usage_of_start()))? {
            None => Ok(Called::Help(self.help_of_start())),
            Some(given) => settings(given).map(Called::Gateway),
        }
    }

    /// Reads flags after pflag's rules; nothing if help is asked for. Other words are let pass, as by etcd.
    fn parse(&self, words: &[&String]) -> Result<Option<Given>, String> {
        let mut given = Given::new();
        let mut asks = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word.as_str() == "--" {
                break;
            }
            let Some(long) = word.strip_prefix("--") else {
                match word.as_str() {
                    "-h" => asks = true,
                    short if short.len() > 1 && short.starts_with('-') => {
                        let letter = short.chars().nth(1).unwrap_or_default();
                        return Err(format!("unknown shorthand flag: '{letter}' in {short}"));
                    }
                    _ => {}
                }
                continue;
            };
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            if name == "help" {
                asks = true;
                continue;
            }
            let Some((name, kind, _)) = self.flags.iter().find(|(known, _, _)| *known == name) else {
                return Err(format!("unknown flag: --{name}"));
            };
            let value = match (value, *kind) {
                (Some(value), _) => value,
                (None, "") => "true",
                (None, _) => words.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
            };
            let value = read(kind, value).map_err(|reason| {
                format!("invalid argument {} for \"--{name}\" flag: {reason}", quote(value))
            })?;
            match (given.get_mut(name), value) {
                (Some(Value::List(list)), Value::List(more)) => list.extend(more),
                (_, value) => _ = given.insert(name, value),
            }
        }
        Ok((!asks).then_some(given))
    }

    /// What stands beside the texts if it does not work.
    fn mark(&self) -> String {
        self.reason.map_or_else(String::new, |_| " (not yet supported)".to_owned())
    }

    fn help(&self) -> String {
        format!("{}{}\n\n{}", self.about, self.mark(), self.usage())
    }

    fn usage(&self) -> String {
        let Command { name, start, .. } = self;
        format!(
            "Usage:\n  etcd {name} [command]\n\nAvailable Commands:\n  start       {start}\n\nFlags:\n  -h, --help   help \
             for {name}\n\nUse \"etcd {name} [command] --help\" for more information about a command.\n"
        )
    }

    fn help_of_start(&self) -> String {
        let mark = self.reason.map_or_else(String::new, |reason| format!(" (not yet supported: {reason})"));
        format!("{}{mark}\n\n{}", self.start, self.usage_of_start())
    }

    fn usage_of_start(&self) -> String {
        let Command { name, flags, .. } = self;
        let mut out = format!("Usage:\n  etcd {name} start [flags]\n\nFlags:\n");
        let left = |flag: &str, kind: &str| format!("      --{flag} {kind}").trim_end().to_owned();
        let width = flags.iter().map(|(flag, kind, _)| left(flag, kind).len()).max().unwrap_or_default();
        for (flag, kind, help) in *flags {
            let _ = writeln!(out, "{:width$}   {help}", left(flag, kind));
        }
        let _ = writeln!(out, "{:width$}   help for start", "  -h, --help");
        out
    }
}

/// Where the first word stands that is neither a flag nor, as far as cobra can tell, a flag's value.
fn first_word(words: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "--" => return None,
            "-h" | "--help" => {}
            flag if flag.starts_with("--") && !flag.contains('=') => at += 1,
            flag if flag.starts_with('-') => {}
            _ => return Some(at),
        }
        at += 1;
    }
    None
}

/// As cobra and then etcd say it.
fn wrong(text: &str, usage: &str) -> String {
    format!("Error: {text}\n{usage}\n{text}")
}

/// # Errors
/// pflag's reason.
fn read(kind: &str, text: &str) -> Result<Value, String> {
    match kind {
        "" => {
            let reason = || format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text));
            Kind::Bool.parse(text).map_err(|_| reason())
        }
        "duration" => {
            let nanos =
                duration::parse(text).ok_or_else(|| format!("time: invalid duration {}", quote(text)))?;
            Ok(Value::Duration(nanos))
        }
        "strings" if text.is_empty() => Ok(Value::List(Vec::new())),
        "strings" => Ok(Value::List(text.split(',').map(str::to_owned).collect())),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// # Errors
/// The option that does not work here.
fn settings(mut given: Given) -> Result<Settings, String> {
    let mut text = |name, default: &str| match given.remove(name) {
        Some(Value::Text(text)) => text,
        _ => default.to_owned(),
    };
    if !text("discovery-srv", "").is_empty() {
        return Err(format!(
            "--discovery-srv is not yet supported by Quorate {} (SRV records cannot be looked up here: name the members \
             by --endpoints)",
            wire::version::QUORATE
        ));
    }
    let listen_addr = text("listen-addr", "127.0.0.1:23790");
    let endpoints = match given.remove("endpoints") {
        Some(Value::List(list)) => list,
        _ => vec!["127.0.0.1:2379".to_owned()],
    };
    let retry_delay = match given.remove("retry-delay") {
        Some(Value::Duration(nanos)) => Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)),
        _ => Duration::from_secs(60),
    };
    Ok(Settings { listen_addr, endpoints, retry_delay })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Result<Settings, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match called(&words).expect("one of these commands") {
            Called::Gateway(settings) => Ok(settings),
            Called::Help(text) | Called::Refused(text) => Err(text),
        }
    }

    fn settings_of(listen_addr: &str, endpoints: &[&str], retry_delay_s: u64) -> Settings {
        Settings {
            listen_addr: listen_addr.to_owned(),
            endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
            retry_delay: Duration::from_secs(retry_delay_s),
        }
    }

    #[test]
    fn flags_of_a_gateway() {
        let default = settings_of("127.0.0.1:23790", &["127.0.0.1:2379"], 60);
        for line in [
            "gateway start",
            "gateway start x",
            "gateway start --insecure-discovery --trusted-ca-file x --discovery-srv-name=x --discovery-srv=",
        ] {
            assert_eq!(call(line), Ok(default.clone()), "{line}");
        }
        let line = "gateway --endpoints=a:1,b:2 start --endpoints c:3 --listen-addr=:1 --retry-delay 2m";
        assert_eq!(call(line), Ok(settings_of(":1", &["a:1", "b:2", "c:3"], 120)));
        assert_eq!(call("gateway start --endpoints="), Ok(settings_of("127.0.0.1:23790", &[], 60)));
        let refused = call("gateway start --discovery-srv example.org").unwrap_err();
        assert!(refused.starts_with("--discovery-srv is not yet supported by Quorate "), "{refused}");
    }

    #[test]
    fn flags_that_are_wrong_have_pflags_words() {
        for (line, text) in [
            ("gateway start --nonsense", "unknown flag: --nonsense"),
            ("gateway start -x", "unknown shorthand flag: 'x' in -x"),
            ("gateway start --endpoints", "flag needs an argument: --endpoints"),
            (
                "gateway start --retry-delay x",
                "invalid argument \"x\" for \"--retry-delay\" flag: time: invalid duration \"x\"",
            ),
            (
                "gateway start --insecure-discovery=x",
                "invalid argument \"x\" for \"--insecure-discovery\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            let said = call(line).unwrap_err();
            let beginning = format!(
                "Error: {text}\nUsage:\n  etcd gateway start [flags]\n\nFlags:\n      --discovery-srv string "
            );
            assert!(said.starts_with(&beginning) && said.ends_with(&format!("\n\n{text}")), "{said}");
        }
        let said = call("gateway --insecure-discovery start").unwrap_err();
        assert!(
            said.starts_with("Error: unknown flag: --insecure-discovery\nUsage:\n  etcd gateway [command]\n"),
            "{said}"
        );
    }
}

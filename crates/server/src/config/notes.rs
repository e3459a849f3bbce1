//! Why a setting does not work here, or works without any effect: told where it is refused, warned about, and documented.

const DISCOVERY: &str = "there is no discovery; name the members in --initial-cluster";
const TRACING: &str = "there is no tracing yet";

/// The reason of each setting that is refused or has no effect.
const NOTES: &[(&str, &str)] = &[
    ("bootstrap-defrag-threshold-megabytes", "space comes back by itself; there is nothing to defragment"),
    ("raft-read-timeout", "a stream between members is cut after 5 s of silence"),
    ("raft-write-timeout", "a stream between members is cut after 5 s in which nothing of it is taken"),
    ("memory-mlock", "pages are not locked in memory yet"),
    ("discovery-token", DISCOVERY),
    ("discovery-endpoints", DISCOVERY),
    ("discovery-dial-timeout", DISCOVERY),
    ("discovery-request-timeout", DISCOVERY),
    ("discovery-keepalive-time", DISCOVERY),
    ("discovery-keepalive-timeout", DISCOVERY),
    ("discovery-insecure-transport", DISCOVERY),
    ("discovery-insecure-skip-tls-verify", DISCOVERY),
    ("discovery-cert", DISCOVERY),
    ("discovery-key", DISCOVERY),
    ("discovery-cacert", DISCOVERY),
    ("discovery-user", DISCOVERY),
    ("discovery-password", DISCOVERY),
    ("discovery-srv", DISCOVERY),
    ("discovery-srv-name", DISCOVERY),
    ("enable-distributed-tracing", TRACING),
    ("distributed-tracing-address", TRACING),
    ("distributed-tracing-service-name", TRACING),
    ("distributed-tracing-instance-id", TRACING),
    ("distributed-tracing-sampling-rate", TRACING),
    ("unsafe-no-fsync", "nothing is acknowledged here before it is durable"),
];

/// Why this setting is refused or has no effect.
pub fn note(name: &str) -> &'static str {
    NOTES.iter().find(|(noted, _)| *noted == name).map_or("it comes later", |(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{SETTINGS, Status};

    #[test]
    fn every_setting_that_does_not_work_says_why() {
        for setting in SETTINGS.iter().filter(|s| matches!(s.status, Status::Later | Status::Inert)) {
            assert!(NOTES.iter().any(|(name, _)| *name == setting.name), "--{}", setting.name);
        }
        for (name, _) in NOTES {
            assert!(SETTINGS.iter().any(|setting| setting.name == *name), "--{name}");
        }
    }
}

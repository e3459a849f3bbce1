//! `make-mirror`: copies the keys of a prefix to another cluster, and then each change of them.

mod copy;

use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use client::{Client, Config, Credentials, Error};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::copy::{Mirror, PAGE_BYTES_MAX};
use super::globals::{endpoints, password_of};
use super::session::{Session, call_failed, not_made};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};

pub(super) const COMMAND: Command = Command::new(
    "make-mirror",
    "make-mirror [options] <destination>",
    "Copies keys to another cluster, and their changes",
    run,
)
.with_long(LONG)
.with_flags(&[
    Flag::new("prefix", Kind::Text, "prefix of the keys to copy"),
    Flag::new(
        "rev",
        Kind::Int,
        "revision of the first change to copy; no keys are copied before (0 or 1: they are)",
    ),
    Flag::new("max-txn-ops", Kind::Uint, "most changes in one transaction at the destination").default("128"),
    Flag::new("dest-prefix", Kind::Text, "prefix at the destination, in place of --prefix"),
    Flag::new("no-dest-prefix", Kind::Bool, "leave the prefix out at the destination"),
    Flag::new("dest-cert", Kind::Text, "certificate for the destination"),
    Flag::new("dest-key", Kind::Text, "key of that certificate"),
    Flag::new("dest-cacert", Kind::Text, "authorities of the destination's certificates"),
    Flag::new("dest-insecure-transport", Kind::Bool, "connect to the destination without TLS")
        .default("true"),
    Flag::new("dest-user", Kind::Text, "user at the destination, with or without :password"),
    Flag::new("dest-password", Kind::Text, "password at the destination; then --user has none in it"),
]);

const LONG: &str = "Copies all keys of a prefix, as they are at one revision, to another cluster, and then each change of
them, until it is ended or something fails. It never deletes keys that the destination had before.

The changes of one revision are one transaction at the destination, unless they are more than --max-txn-ops or than
it takes in one request. Every 30 seconds it prints how many keys and changes it has copied.

With --rev, and without a --dest-prefix, the prefix is left out at the destination.";

/// Between two prints of how much was copied.
const PRINTED_EVERY: Duration = Duration::from_secs(30);

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let bad = |text| Failure::new(exit::BAD_ARGS, text);
    let destination = match call.args.as_slice() {
        [only] => String::from_utf8_lossy(only).into_owned(),
        _ => return Err(bad("make-mirror takes one destination argument")),
    };
    let credentials = destination_credentials(call)?;
    let session = Session::open(call)?;
    let config = destination_config(call, &session.config, destination, credentials)?;
    let destination = session.connect(config).map_err(not_made)?;
    let source = session.client()?;
    let pages = Config {
        answer_bytes_max: session.config.answer_bytes_max.min(PAGE_BYTES_MAX),
        ..session.config.clone()
    };

    let prefix = call.flags.text("prefix").to_owned();
    let (given, is_left_out) = (call.flags.text("dest-prefix").to_owned(), call.flags.bool("no-dest-prefix"));
    if is_left_out && !given.is_empty() {
        let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
        return Err(bad(text));
    }
    // Revision 1 is that of an empty store: there is no change to begin with.
    let first_change = Some(call.flags.int("rev")).filter(|revision| *revision > 1);
    let destination_prefix = match (&first_change, given.is_empty() && !is_left_out) {
        (None, true) => prefix.clone(),
        _ => given,
    };
    let mirror = Mirror::new(
        source,
        Client::new(pages).map_err(not_made)?,
        destination,
        (prefix.into_bytes(), destination_prefix.into_bytes()),
        call.flags.uint("max-txn-ops"),
    );
    let error = session.wait(counted(mirror.run(first_change), || mirror.copied(), &mut call.world.out))?;
    Err(call_failed(error))
}

/// Runs the copying until it ends, and prints its count now and then.
///
/// # Errors
/// When the count cannot be printed.
async fn counted(
    copying: impl Future<Output = Error>,
    count: impl Fn() -> u64,
    out: &mut dyn Write,
) -> Result<Error, Failure> {
    let mut copying = pin!(copying);
    let mut print = interval_at(Instant::now() + PRINTED_EVERY, PRINTED_EVERY);
    print.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            error = &mut copying => return Ok(error),
            _ = print.tick() => {
                writeln!(out, "{}", count())?;
                out.flush()?;
            }
        }
    }
}

/// Who the mirror is at the destination. Asks for the password if it stands nowhere.
fn destination_credentials(call: &mut Invocation<'_>) -> Result<Option<Credentials>, Failure> {
    let text = |name| call.flags.text(name).to_owned();
    password_of(call, (text("dest-user"), text("dest-password")), "Destination Password: ")
}

/// The destination's client: what the flags say of it, and else as the source's.
fn destination_config(
    call: &Invocation<'_>,
    source: &Config,
    endpoint: String,
    credentials: Option<Credentials>,
) -> Result<Config, Failure> {
    let file = |name| call.flags.text(name).to_owned();
    let tls = tls::Info {
        cert_file: file("dest-cert"),
        key_file: file("dest-key"),
        trusted_ca_file: file("dest-cacert"),
        ..tls::Info::default()
    };
    let has_files = [&tls.cert_file, &tls.key_file, &tls.trusted_ca_file].iter().any(|file| !file.is_empty());
    Ok(Config {
        endpoints: endpoints(&[endpoint])?,
        tls,
        tls_by_default: has_files || !call.flags.bool("dest-insecure-transport"),
        credentials,
        ..source.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_count_is_printed_every_half_minute() {
        let begun = Instant::now();
        let copying = async {
            tokio::time::sleep(PRINTED_EVERY * 2 + Duration::from_secs(1)).await;
            Error::WatchLost
        };
        let mut out = Vec::new();
        let error = counted(copying, || begun.elapsed().as_secs(), &mut out).await.unwrap();
        assert!(matches!(error, Error::WatchLost));
        assert_eq!(out, b"30\n60\n");
    }
}

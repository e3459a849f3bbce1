//! What a command needs to ask a server: settings read, a client, a printer, and a runtime of one thread.

use std::fmt::Display;

use client::{Client, Config, Deadline};
use tokio::runtime::Runtime;

use super::globals;
use crate::app::{Failure, Invocation, exit};
use crate::gotext;
use crate::print::{Format, Printer};

pub(super) struct Session {
    pub config: Config,
    pub printer: Printer,
    runtime: Runtime,
}

impl Session {
    /// Reads variables and flags. Nothing is connected yet.
    pub(super) fn open(call: &mut Invocation<'_>) -> Result<Session, Failure> {
        globals::read_variables(call)?;
        let config = globals::client_config(call)?;
        let format = Format::parse(call.flags.text("write-out"))?;
        let printer = Printer { format, hex: call.flags.bool("hex"), value_only: false };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| Failure::new(exit::ERROR, format!("start the runtime: {error}")))?;
        Ok(Session { config, printer, runtime })
    }

    /// A client of all endpoints.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Client::new(self.config.clone()).map_err(|error| match error {
            error @ client::Error::Tls(_) => Failure::new(exit::BAD_ARGS, error),
            error => Failure::new(exit::BAD_CONNECTION, error),
        })
    }

    /// Runs calls to their end.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// The deadline of a short command that begins now.
pub(super) fn deadline(call: &Invocation<'_>) -> Deadline {
    Deadline::after(call.flags.duration("command-timeout"))
}

/// The failure of a call.
pub(super) fn call_failed(error: client::Error) -> Failure {
    call_failed_as(exit::ERROR, &error, &error)
}

/// The same with an exit code and a text of the command's own.
pub(super) fn call_failed_as(code: u8, text: impl Display, error: &client::Error) -> Failure {
    let failure = Failure::new(code, text);
    Failure { message: cause_line(error) + &failure.message, ..failure }
}

/// The line that names why there was no connection, as etcd's client logs it to standard error; else nothing.
pub(super) fn cause_line(error: &client::Error) -> String {
    let client::Error::Unreachable { endpoint, cause } = error else { return String::new() };
    let doing = if cause.starts_with("authentication") { "" } else { "Error while dialing: " };
    let dialing = gotext::quote(format!("transport: {doing}{cause}").as_bytes());
    let error = format!(
        "rpc error: code = DeadlineExceeded desc = latest balancer error: connection error: desc = {dialing}"
    );
    let fields = [("logger", "etcd-client"), ("msg", "retrying of unary invoker failed")];
    globals::log_line("warn", &[&fields[..], &[("target", endpoint), ("error", &error)]].concat())
}

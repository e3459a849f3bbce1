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

    /// A client of all endpoints, which has logged in.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.connect(self.config.clone()).map_err(not_made)
    }

    /// A client that has logged in, if it has a user.
    pub(super) fn connect(&self, config: Config) -> Result<Client, client::Error> {
        self.wait(connect(config))
    }

    /// One call of a client of its own.
    ///
    /// # Errors
    /// When there is no client, and when it cannot log in. What came of the call is the caller's, and so is an endpoint
    /// that cannot be read.
    pub(super) fn ask<T>(
        &self,
        config: Result<Config, client::Error>,
        call: impl AsyncFnOnce(Client) -> Result<T, client::Error>,
    ) -> Result<Result<T, client::Error>, Failure> {
        match config.and_then(|config| self.connect(config)) {
            Ok(client) => Ok(self.wait(call(client))),
            Err(error @ client::Error::BadEndpoint { .. }) => Ok(Err(error)),
            Err(error) => Err(not_made(error)),
        }
    }

    /// Runs calls to their end.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// A client that has logged in, if it has a user: within the time that a connection may take.
pub(super) async fn connect(config: Config) -> Result<Client, client::Error> {
    let deadline = Deadline::after(config.dial_timeout);
    let client = Client::new(config)?;
    client.log_in(deadline).await?;
    Ok(client)
}

/// The failure of a client that could not be made.
pub(super) fn not_made(error: client::Error) -> Failure {
    let code = match error {
        client::Error::Tls(_) => exit::BAD_ARGS,
        _ => exit::BAD_CONNECTION,
    };
    call_failed_as(code, &error, &error)
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

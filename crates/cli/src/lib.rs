//! The commands of etcdctl and etcdutl.
//!
//! A command is a line in the table of [`ctl`] or [`utl`] and a file: arguments to request, answer to printer. The
//! printers ([`print`](mod@print)) are pure functions of an answer and a writer. Nothing below [`process`] prints
//! or exits: streams and variables are handed in ([`app::World`]), and how a run ended is a value
//! ([`app::Failure`]).
//!
//! Flags follow Go's cobra and pflag with an own parser ([`flag`], [`command`]), since scripts match on its texts, and
//! since the requests inside `txn` are command lines too.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod app;
pub mod command;
mod completion;
pub mod ctl;
pub mod flag;
pub mod gotext;
pub mod help;
pub mod print;
pub mod process;
pub mod utl;

//! One member on virtual time and a simulated disk, driven by a seed.
//!
//! [`run`] joins the parts of a real `node::Member`, runs them in a random order, crashes them at any effect and
//! in the middle of their disk operations, and checks every answer and every restart against a model. The same
//! seed gives the same run: [`Report::digest`] says so. Nothing here knows the server's shell.
#![forbid(unsafe_code)]

mod checker;
pub mod cluster;
mod leases;
pub mod member;
mod model;
pub mod random;
mod run;
mod users;
pub mod workload;

pub use run::{Options, Report, run};

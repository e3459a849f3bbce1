//! One measured run: warm up, take the costs before, run, take them after.

use crate::process::{Observed, own_cpu};
use crate::report::{Figures, ServerCost};
use crate::run::{Load, Target};
use crate::schedule::Stop;
use crate::workload::{Kind, Order, Shape, Workload};

/// What one measured run does.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The calls.
    pub kind: Kind,
    /// Their keys and values.
    pub shape: Shape,
    /// Calls a second in an open loop; `None` is a closed loop.
    pub rate: Option<f64>,
    /// Its end.
    pub stop: Stop,
    /// A run before it, on the same connections, that is not counted.
    pub warm_up: Option<Stop>,
}

/// Runs it against `target` and tells what it cost `server` as well.
///
/// # Errors
/// When the target can't be connected to, or the server's process is gone. Failed calls are in the figures.
pub fn measure(
    measurement: &Measurement,
    target: &Target,
    server: Option<Observed>,
) -> anyhow::Result<Figures> {
    measurement.shape.check()?;
    let mut load = Load::connect(target, measurement.kind)?;
    let mut workload = Workload::new(measurement.kind, measurement.shape.clone());
    if let Some(stop) = measurement.warm_up {
        load.run(&mut workload, measurement.rate, stop)?;
    }
    let server_before = server.as_ref().map(Observed::cpu).transpose()?;
    let own_before = own_cpu()?;
    let outcome = load.run(&mut workload, measurement.rate, measurement.stop)?;
    let own = own_cpu()?.saturating_sub(own_before);
    let cost = match (server, server_before) {
        (Some(server), Some(before)) => {
            Some(ServerCost { cpu: server.cpu()?.saturating_sub(before), memory: server.memory()? })
        }
        _ => None,
    };
    Ok(Figures::new(&outcome, own, cost))
}

/// Puts every key of `shape` once, in order.
///
/// # Errors
/// When a put fails.
pub fn fill(shape: &Shape, target: &Target) -> anyhow::Result<()> {
    shape.check()?;
    let mut workload = Workload::new(Kind::Put, Shape { order: Order::Sequential, ..shape.clone() });
    let stop = Stop { requests: Some(shape.keys), duration: None };
    let outcome = Load::connect(target, Kind::Put)?.run(&mut workload, None, stop)?;
    anyhow::ensure!(outcome.answered == shape.keys, "fill {} keys: {:?}", shape.keys, outcome.errors);
    Ok(())
}

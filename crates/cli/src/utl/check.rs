//! `check`: reads a whole data directory, and says what is wrong with it.

use std::sync::Arc;

use disk::{Fs, RealFs};

use super::held::{data_dir, require, when_free};
use super::node_failure;
use crate::app::{Failure, Invocation, exit};

pub(super) fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    require(call, &["data-dir"])?;
    let place = data_dir(call);
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let report =
        when_free(call, || node::offline::check(&fs, &place)).map_err(|error| node_failure(&error))?;
    for part in &report.sound {
        writeln!(call.world.out, "{}: sound: {}", part.path.display(), part.holds)?;
    }
    for note in &report.notes {
        writeln!(call.world.out, "{note}")?;
    }
    for fault in &report.faults {
        writeln!(call.world.out, "fault: {}\n       {}", fault.what, fault.advice)?;
    }
    call.world.out.flush()?;
    match report.faults.len() {
        0 => Ok(()),
        1 => Err(Failure::new(exit::ERROR, format!("1 fault in {}", place.path.display()))),
        count => Err(Failure::new(exit::ERROR, format!("{count} faults in {}", place.path.display()))),
    }
}

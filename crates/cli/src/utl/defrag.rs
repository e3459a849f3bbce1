//! `defrag`: gives back the space of a data directory that nobody uses.

use std::path::Path;
use std::sync::Arc;

use disk::{Fs, RealFs};

use super::held::{data_dir, require, when_free};
use super::{Value, line, node_text};
use crate::app::{Failure, Invocation, exit};
use crate::gotext;

pub(super) fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    require(call, &["data-dir"])?;
    let place = data_dir(call);
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let shown = place.path.display().to_string();
    let done = when_free(call, || node::offline::defrag(&fs, &place)).map_err(|error| {
        let text = format!("Failed to defragment etcd data[{shown}] ({})", node_text(&error));
        Failure::new(exit::ERROR, text)
    })?;
    let fields = [
        ("path", Value::Text(text_of(&done.path))),
        ("previous-db-size-bytes", Value::Number(done.before)),
        ("current-db-size-bytes", Value::Number(done.after)),
        ("current-db-size", Value::Text(gotext::size(done.after))),
        ("current-db-size-in-use-bytes", Value::Number(done.in_use)),
        ("current-db-size-in-use", Value::Text(gotext::size(done.in_use))),
    ];
    line(call, "info", "finished defragmenting directory", &fields)
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

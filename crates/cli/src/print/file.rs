//! What etcdutl says of a file, in each format that it has.

use std::io::{Result, Write};

use super::{FileHash, Format, SnapshotStatus, table};
use crate::gotext;

/// A line of cells with commas between them.
fn line(out: &mut dyn Write, cells: &[String]) -> Result<()> {
    writeln!(out, "{}", cells.join(", "))
}

pub(super) fn status(out: &mut dyn Write, format: Format, status: &SnapshotStatus) -> Result<()> {
    let SnapshotStatus { hash, revision, total_key, total_size, version } = status;
    let row = [
        format!("{hash:x}"),
        revision.to_string(),
        total_key.to_string(),
        gotext::size(*total_size),
        version.clone(),
    ];
    match format {
        Format::Fields => {
            writeln!(out, "\"Hash\" : {hash}")?;
            writeln!(out, "\"Revision\" : {revision}")?;
            writeln!(out, "\"Keys\" : {total_key}")?;
            writeln!(out, "\"Size\" : {total_size}")?;
            writeln!(out, "\"Version\" : {version}")
        }
        Format::Json => writeln!(
            out,
            "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{total_key},\"totalSize\":{total_size},\
             \"version\":{}}}",
            gotext::quote(version.as_bytes())
        ),
        Format::Table => {
            table::write(out, &["hash", "revision", "total keys", "total size", "version"], &[row])
        }
        Format::Simple | Format::Protobuf => line(out, &row),
    }
}

pub(super) fn hash(out: &mut dyn Write, format: Format, found: &FileHash) -> Result<()> {
    let FileHash { hash, hash_revision, compact_revision } = found;
    let row = [hash.to_string(), hash_revision.to_string(), compact_revision.to_string()];
    match format {
        Format::Fields => {
            writeln!(out, "\"Hash\" : {hash}")?;
            writeln!(out, "\"Hash revision\" : {hash_revision}")?;
            writeln!(out, "\"Compact revision\" : {compact_revision}")
        }
        Format::Json => writeln!(
            out,
            "{{\"hash\":{hash},\"hashRevision\":{hash_revision},\"compactRevision\":{compact_revision}}}"
        ),
        Format::Table => table::write(out, &["hash", "hash revision", "compact revision"], &[row]),
        Format::Simple | Format::Protobuf => line(out, &row),
    }
}

//! Not written yet.
pub(crate) fn run() -> anyhow::Result<()> {
    Ok(())
}

//! Not written yet.
pub(crate) fn run(_args: &[&str]) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}

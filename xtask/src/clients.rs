//! Not written yet.
pub(crate) fn run(_args: &[&str]) -> anyhow::Result<()> {
    println!("skipped: not written yet");
    Ok(())
}

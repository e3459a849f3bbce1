//! How far a check is, shown to a person.

use std::io::{Result, Write};

/// Between the brackets.
const WIDTH: u64 = 40;

/// A line that is written over and over, where a terminal shows it.
pub(super) struct Progress {
    is_shown: bool,
    whole: u64,
}

impl Progress {
    /// `whole`: what there is to do.
    pub(super) fn new(is_shown: bool, whole: u64) -> Progress {
        Progress { is_shown, whole }
    }

    /// Shows how much is done.
    pub(super) fn show(&self, err: &mut dyn Write, done: u64) -> Result<()> {
        if !self.is_shown {
            return Ok(());
        }
        write!(err, "\r{}", self.line(done))?;
        err.flush()
    }

    /// Leaves the line as it is.
    pub(super) fn end(&self, err: &mut dyn Write, done: u64) -> Result<()> {
        self.show(err, done)?;
        if self.is_shown { writeln!(err) } else { Ok(()) }
    }

    fn line(&self, done: u64) -> String {
        let whole = self.whole.max(1);
        let done = done.min(whole);
        let filled = (done * WIDTH / whole) as usize;
        let (marks, rest) = ("-".repeat(filled), "_".repeat(WIDTH as usize - filled));
        format!("{done} / {whole} [{marks}{rest}] {:.2}%", done as f64 * 100.0 / whole as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_terminal_and_nothing_for_a_file() {
        let mut err = Vec::new();
        let progress = Progress::new(true, 60);
        progress.show(&mut err, 15).unwrap();
        progress.end(&mut err, 61).unwrap();
        let (quarter, all) = ("-".repeat(10) + &"_".repeat(30), "-".repeat(40));
        let expected = format!("\r15 / 60 [{quarter}] 25.00%\r60 / 60 [{all}] 100.00%\n");
        assert_eq!(String::from_utf8(err).unwrap(), expected);

        let mut err = Vec::new();
        Progress::new(false, 60).show(&mut err, 15).unwrap();
        Progress::new(false, 60).end(&mut err, 60).unwrap();
        assert!(err.is_empty());
    }
}

//! Standard input as lines, beside other work.

use std::io::{BufRead, BufReader, Read};

use tokio::sync::mpsc;

use crate::app::{Failure, exit};

/// Reads lines on a thread of its own, one ahead. The thread is left behind when this is dropped: it waits for input
/// that may never come, and ends with the process.
pub(super) struct Lines(mpsc::Receiver<std::io::Result<Vec<u8>>>);

impl Lines {
    pub(super) fn read(input: Box<dyn Read + Send>) -> Result<Lines, Failure> {
        let (lines, receiver) = mpsc::channel(1);
        let read = move || {
            let mut input = BufReader::new(input);
            loop {
                let mut line = Vec::new();
                let read = input.read_until(b'\n', &mut line).map(|_| line);
                let ended = !read.as_ref().is_ok_and(|line| line.ends_with(b"\n"));
                // Without its end it is no line.
                if lines.blocking_send(read).is_err() || ended {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(read)
            .map_err(|error| Failure::new(exit::ERROR, format!("start a thread: {error}")))?;
        Ok(Lines(receiver))
    }

    /// The next line without its end. Cancel safe.
    ///
    /// # Errors
    /// [`exit::INVALID_INPUT`] at the end of the input, and when it cannot be read.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        let reason = match self.0.recv().await {
            Some(Ok(mut line)) => match line.pop() {
                Some(b'\n') => return Ok(line),
                _ => "EOF".to_owned(),
            },
            Some(Err(error)) => error.to_string(),
            None => "EOF".to_owned(),
        };
        Err(Failure::new(exit::INVALID_INPUT, format!("error reading watch request line: {reason}")))
    }
}

//! Passwords that are typed, or stand on standard input.

use std::io::{self, Read};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

use crate::app::{Failure, Invocation, exit};

/// What the keys Ctrl-C and Ctrl-\ send.
const INTERRUPT: u8 = 0x03;
const QUIT: u8 = 0x1c;

/// The exit code of a program that is interrupted while it asks: etcdctl's −1.
const GIVEN_UP: u8 = 255;

/// Asks for a password: a line, without the spaces around it. It is not shown while it is typed. At the end of the
/// input it is empty.
///
/// # Errors
/// Of this code when the input cannot be read, and 255 when the user gives up.
pub(super) fn ask(call: &mut Invocation<'_>, prompt: &str, code: u8, doing: &str) -> Result<String, Failure> {
    let world = &mut call.world;
    write!(world.out, "{prompt}")?;
    world.out.flush()?;
    let hidden = world.input_is_terminal.then(Hidden::begin).flatten();
    let line = read_line(&mut world.input, hidden.is_some());
    drop(hidden);
    writeln!(world.out)?;
    world.out.flush()?;
    let failed =
        |error: io::Error| Failure::new(code, format!("{doing}failed during password entry: {error}"));
    match line.map_err(failed)? {
        Some(line) => Ok(String::from_utf8_lossy(&line).trim().to_owned()),
        None => Err(Failure::silent(GIVEN_UP)),
    }
}

/// Asks twice for the password that a user is to have.
///
/// # Errors
/// [`exit::BAD_ARGS`] for an empty one, and when the second is another.
pub(super) fn ask_new(call: &mut Invocation<'_>, user: &str) -> Result<String, Failure> {
    let bad = |text| Err(Failure::new(exit::BAD_ARGS, text));
    let doing = "failed to ask password: ";
    let first = ask(call, &format!("Password of {user}: "), exit::BAD_ARGS, doing)?;
    if first.is_empty() {
        return bad("empty password");
    }
    let again = format!("Type password of {user} again for confirmation: ");
    if ask(call, &again, exit::BAD_ARGS, doing)? != first {
        return bad("given passwords are different");
    }
    Ok(first)
}

/// The first word of the first line of the input, as Go's `Scanf` reads it: without one it is empty, which is no error.
/// What follows the word's end is left for whoever reads next.
pub(super) fn scan(input: &mut dyn Read) -> String {
    let mut word = Vec::new();
    while let Ok(Some(byte)) = read_byte(input) {
        match byte {
            b'\n' => break,
            _ if !byte.is_ascii_whitespace() && byte != b'\x0b' => word.push(byte),
            _ if word.is_empty() => {}
            _ => break,
        }
    }
    String::from_utf8_lossy(&word).into_owned()
}

/// A line without its end, a byte at a time: what follows is for whoever reads next. Nothing if the line is given up,
/// which is looked for in what is `typed`.
fn read_line(input: &mut dyn Read, typed: bool) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    while let Some(byte) = read_byte(input)? {
        match byte {
            b'\n' => break,
            INTERRUPT | QUIT if typed => return Ok(None),
            byte => line.push(byte),
        }
    }
    Ok(Some(line))
}

fn read_byte(input: &mut dyn Read) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(read) => return Ok((read > 0).then_some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The terminal on standard input shows nothing of what is typed, until this is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    /// Nothing if it cannot be done: the password is taken all the same.
    fn begin() -> Option<Hidden> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut hidden = before.clone();
        // Keys that would end the process end the line instead, or the terminal would stay as it is now.
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        hidden.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        hidden.control_chars[SpecialCharacterIndices::VEOL2 as usize] = QUIT;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &hidden).ok()?;
        Some(Hidden { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing more.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_go_scans_them() {
        for (text, word, rest) in [
            ("pw\nnext", "pw", "next"),
            ("  \t pw  more\n", "pw", " more\n"),
            ("\npw\n", "", "pw\n"),
            ("pw", "pw", ""),
            ("", "", ""),
            ("a:b\"c\r\n", "a:b\"c", "\n"),
        ] {
            let mut input = text.as_bytes();
            assert_eq!(
                (scan(&mut input), str::from_utf8(input).unwrap()),
                (word.to_owned(), rest),
                "{text:?}"
            );
        }
    }

    #[test]
    fn lines_are_taken_one_at_a_time() {
        let mut input = &b"a b\r\n\x03c\n"[..];
        assert_eq!(read_line(&mut input, false).unwrap().unwrap(), b"a b\r");
        assert_eq!(read_line(&mut input, false).unwrap().unwrap(), b"\x03c");
        assert_eq!(read_line(&mut input, false).unwrap().unwrap(), b"");
        let mut typed = &b"ab\x03cd\n"[..];
        assert_eq!(read_line(&mut typed, true).unwrap(), None);
        assert_eq!(typed, b"cd\n");
    }
}

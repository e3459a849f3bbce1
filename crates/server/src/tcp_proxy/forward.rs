//! What one side says, said to the other, both ways at once.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Most that is read of one side before the other has taken it, bytes.
pub(super) const PIECE_BYTES: usize = 32 << 10;

/// Pieces of one connection after which others get a turn.
const PIECES_IN_A_ROW: u32 = 16;

/// Carries the connections of a thread. They share its one buffer: who has nothing to say costs no memory, and what
/// the other side does not take at once is kept apart.
pub(super) struct Forwarder {
    buffer: RefCell<Vec<u8>>,
}

impl Default for Forwarder {
    fn default() -> Self {
        Forwarder { buffer: RefCell::new(vec![0; PIECE_BYTES]) }
    }
}

impl Forwarder {
    /// Carries what is said until both sides have said all, or one breaks off.
    pub(super) async fn run(&self, client: &TcpStream, member: &TcpStream) {
        // Why it has ended concerns the two sides: each sees its own connection closed.
        let _ = tokio::try_join!(self.carry(client, member), self.carry(member, client));
    }

    /// One direction, to its end: the receiver is told that nothing more comes, and may still speak.
    async fn carry(&self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        let mut pieces = 0;
        loop {
            from.readable().await?;
            match self.move_piece(from, to) {
                Ok(Moved::All) => {}
                Ok(Moved::Part(rest)) => write_all(to, &rest).await?,
                Ok(Moved::End) => return SockRef::from(to).shutdown(Shutdown::Write),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            pieces += 1;
            if pieces % PIECES_IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads once, and writes as much of it as goes at once.
    fn move_piece(&self, from: &TcpStream, to: &TcpStream) -> io::Result<Moved> {
        let mut buffer = self.buffer.borrow_mut();
        let read = from.try_read(&mut buffer)?;
        if read == 0 {
            return Ok(Moved::End);
        }
        let mut left = &buffer[..read];
        while !left.is_empty() {
            match to.try_write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Moved::Part(left.to_vec()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Moved::All)
    }
}

enum Moved {
    All,
    /// All but this.
    Part(Vec<u8>),
    /// There is nothing more to come.
    End,
}

async fn write_all(to: &TcpStream, mut left: &[u8]) -> io::Result<()> {
    while !left.is_empty() {
        to.writable().await?;
        match to.try_write(left) {
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (here, accepted) = tokio::join!(connecting, listener.accept());
        (here.unwrap(), accepted.unwrap().0)
    }

    fn pattern(count: usize, seed: usize) -> Vec<u8> {
        (0..count).map(|n| (n * 31 + n / 251 + seed) as u8).collect()
    }

    /// More than all buffers on the way hold, both ways at once; and the one that has ended still hears the other.
    #[tokio::test]
    async fn all_that_is_said_arrives_both_ways() {
        const BYTES: usize = 32 << 20;
        let ((client, client_side), (member_side, member)) = (pair().await, pair().await);
        let forwarder = Forwarder::default();
        let talk = async |stream: TcpStream, seed: usize| {
            let (mut read, mut write) = stream.into_split();
            let (sent, heard) = tokio::join!(
                async {
                    write.write_all(&pattern(BYTES, seed)).await.unwrap();
                    write.shutdown().await.unwrap();
                },
                async {
                    let mut heard = Vec::new();
                    read.read_to_end(&mut heard).await.unwrap();
                    heard
                }
            );
            let () = sent;
            heard
        };
        let ((), at_client, at_member) =
            tokio::join!(forwarder.run(&client_side, &member_side), talk(client, 1), talk(member, 2));
        assert!(at_member == pattern(BYTES, 1) && at_client == pattern(BYTES, 2));
    }

    #[tokio::test]
    async fn a_client_that_has_said_all_is_still_answered() {
        let ((mut client, client_side), (member_side, mut member)) = (pair().await, pair().await);
        let forwarder = Forwarder::default();
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            member.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"question");
            member.write_all(b"answer").await.unwrap();
            drop(member);
            heard.clear();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"answer");
        };
        tokio::join!(forwarder.run(&client_side, &member_side), talk);
    }

    #[tokio::test]
    async fn one_side_that_breaks_off_ends_the_other() {
        let ((client, client_side), (member_side, mut member)) = (pair().await, pair().await);
        let forwarder = Forwarder::default();
        let talk = async {
            // With this a close is a reset.
            SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            let mut heard = Vec::new();
            let _ = member.read_to_end(&mut heard).await;
            assert!(heard.is_empty());
        };
        let run = async {
            forwarder.run(&client_side, &member_side).await;
            drop((client_side, member_side));
        };
        tokio::join!(run, talk);
    }
}

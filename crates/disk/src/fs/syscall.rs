//! The one place of this crate with unsafe code: `preadv2`, for which neither std nor nix has a wrapper.
#![allow(unsafe_code, reason = "preadv2 with RWF_NOWAIT has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// Reads at most `buf.len()` bytes at `offset` without waiting for the disk. The answer is how many were read.
///
/// # Errors
/// `WouldBlock` if the first byte is not in the page cache; `Unsupported` where the file system cannot tell.
pub(super) fn read_at_nowait(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: `slice` describes `buf`, which is borrowed mutably for the whole call and outlives it; the
    // kernel writes at most `iov_len` bytes into it. The descriptor is open, since `file` is borrowed.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &slice, 1, offset, libc::RWF_NOWAIT) };
    match usize::try_from(read) {
        Ok(read) => Ok(read),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

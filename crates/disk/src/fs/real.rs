//! The machine's file system.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{
    FallocateFlags, FcntlArg, Flock, FlockArg, PosixFadviseAdvice, fallocate, fcntl, posix_fadvise,
};
use nix::libc;

use super::syscall::read_at_nowait;
use super::{Access, DirLock, File, Fs};

/// The file system of the machine that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match access {
            Access::Read => {}
            Access::ReadWrite => {
                options.write(true);
            }
            Access::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(mode).create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not UTF-8 is none of ours and matches nothing that callers look for.
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o777)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn take_owner(&self, path: &Path, of: &Path) -> io::Result<()> {
        let (own, other) = (fs::metadata(path)?, fs::metadata(of)?);
        if (own.uid(), own.gid()) == (other.uid(), other.gid()) {
            return Ok(());
        }
        match chown(path, Some(other.uid()), Some(other.gid())) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            done => done,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        match Flock::lock(fs::File::open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(DirLock::new(lock)),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn read_exact_at_nowait(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let mut done = 0;
        while done < buf.len() {
            match read_at_nowait(&self.0, &mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // tmpfs and some network file systems cannot tell: there, only the slow path is safe.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn forget_cached(&self) -> io::Result<()> {
        // The whole file. Dirty pages stay, which is as it should be: they are still to be written. Where a system does
        // not take advice, or a sandbox forbids it, there is nothing better to be had, and no reason not to start.
        let _taken = posix_fadvise(&self.0, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let bytes = libc::off_t::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                // Without a reservation a full disk can still come as a failed write; etcd accepts that too.
                Err(nix::Error::EOPNOTSUPP) if self.0.metadata()?.len() < len => return self.0.set_len(len),
                Err(nix::Error::EOPNOTSUPP) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn lock(&self) -> io::Result<()> {
        let whole_file = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&self.0, FcntlArg::F_OFD_SETLK(&whole_file)) {
            Ok(_) => Ok(()),
            Err(nix::Error::EACCES) => Err(io::ErrorKind::WouldBlock.into()),
            Err(errno) => Err(errno.into()),
        }
    }
}

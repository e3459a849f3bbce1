//! A file system in memory that loses what a disk may lose.
//!
//! It keeps, beside what is written, what a power cut could leave: per file every version of every unsynced
//! 512-byte sector and of the length, per folder every unsynced change of a name. A power cut draws from
//! these by a seed: each sector on its own (so a write can be lost, kept, torn, and reordered against every
//! other), each length, each name change. Killing the process loses nothing that was written. A sync that fails
//! ([`MemFs::fail_sync`]) leaves sectors that only the cache has, as Linux does: they are read, killing the process
//! keeps them, no later sync writes them, and a power cut takes them away.
//!
//! All handles of one [`MemFs`] share the state; [`MemFs::crashed`] and [`MemFs::copy`] give an independent
//! one. Nothing here is random but by the seeds handed in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::{Access, DirLock, File, Fs};

/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

type Sector = Arc<[u8; SECTOR_BYTES as usize]>;
type Ino = u64;
const ROOT: Ino = 0;

/// A file system in memory, with power cuts, a capacity, a record of operations and access to raw bytes.
///
/// Cloning shares the state. Paths are taken from the root, whether they begin with `/` or not.
#[derive(Clone)]
pub struct MemFs {
    state: Arc<Mutex<State>>,
}

impl Default for MemFs {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemFs").field("files", &self.files()).finish()
    }
}

impl MemFs {
    /// An empty file system without a limit.
    pub fn new() -> Self {
        let root = Inode::Dir(Dir { mode: 0o755, ..Dir::default() });
        let state = State { inodes: BTreeMap::from([(ROOT, root)]), next_ino: ROOT + 1, ..State::default() };
        MemFs { state: Arc::new(Mutex::new(state)) }
    }

    /// Limits the sum of all file lengths to `bytes`; what exceeds it fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock_state().capacity = bytes;
    }

    /// The sum of all file lengths, bytes.
    pub fn used(&self) -> u64 {
        self.lock_state().used()
    }

    /// What a power cut at this moment may leave, drawn by `seed`, as an independent file system. This one
    /// goes on unharmed.
    pub fn crashed(&self, seed: u64) -> MemFs {
        let copy = self.copy();
        copy.power_cut(seed);
        copy
    }

    /// An independent file system of the same contents, what is unsynced still being so; no file is open or
    /// locked in it. This is what a killed process leaves.
    pub fn copy(&self) -> MemFs {
        let mut state = self.lock_state().clone();
        state.forget_process();
        MemFs { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power in place: unsynced changes are each kept or lost by `seed`, and every open handle and
    /// lock is dead.
    pub fn power_cut(&self, seed: u64) {
        let mut state = self.lock_state();
        state.forget_process();
        state.power_cut(&mut Draw(seed));
    }

    /// Kills the process in place: everything written stays, every open handle and lock is dead.
    pub fn kill(&self) {
        self.lock_state().forget_process();
    }

    /// Lets `operations` more changing operations (create, write, sync, allocate, set_len, rename, remove,
    /// sync_dir, create_dir_all) happen; each one after that fails and changes nothing. `None` lifts it.
    pub fn halt_after(&self, operations: Option<u64>) {
        self.lock_state().halt_after = operations;
    }

    /// Whether an operation has failed because of [`MemFs::halt_after`] since it was last set.
    pub fn has_halted(&self) -> bool {
        self.lock_state().halt_after == Some(0)
    }

    /// Lets the next sync of a file fail with EIO, some of what it was to write being lost, by `seed`.
    pub fn fail_sync(&self, seed: u64) {
        self.lock_state().failing_sync = Some(seed);
    }

    /// Whether a sync has failed because of [`MemFs::fail_sync`] in this process.
    pub fn has_failed_sync(&self) -> bool {
        self.lock_state().has_failed_sync
    }

    /// How many changing operations happened so far.
    pub fn operations(&self) -> u64 {
        self.lock_state().operations
    }

    /// Makes [`File::read_exact_at_nowait`] answer that nothing is in memory.
    pub fn set_cold(&self, cold: bool) {
        self.lock_state().cold = cold;
    }

    /// Starts to record operations, one line each.
    pub fn start_trace(&self) {
        self.lock_state().trace = Some(String::new());
    }

    /// What was recorded since the start or the last call.
    pub fn take_trace(&self) -> String {
        self.lock_state().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// All files, sorted by path.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.lock_state();
        let mut files = Vec::new();
        state.walk(ROOT, &PathBuf::from("/"), &mut files);
        files.into_iter().map(|(path, _)| path).collect()
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let state = self.lock_state();
        let ino = state.file_at(path.as_ref())?;
        let body = state.body(ino);
        let mut bytes = vec![0; body.len as usize];
        body.read(&mut bytes, 0);
        Ok(bytes)
    }

    /// Makes a file hold exactly `bytes`, durably, as if it had always done so; its folder must exist.
    ///
    /// # Errors
    /// `NotFound` if the folder does not exist.
    pub fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock_state();
        let (dir, name) = state.parent_of(path.as_ref())?;
        let ino = match state.dir(dir)?.entries.get(&name) {
            Some(&ino) => ino,
            None => {
                let ino = state.new_inode(Inode::File(Body::default()), path.as_ref());
                state.change_name(NameChange::Link { dir, name, ino });
                state.sync_names(dir);
                ino
            }
        };
        let body = state.body_mut(ino);
        *body = Body::default();
        body.write(bytes, 0);
        body.sync();
        Ok(())
    }

    /// Exclusive-ors one byte of a file, durably.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, `UnexpectedEof` if it ends before `offset`.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.lock_state();
        let ino = state.file_at(path.as_ref())?;
        let body = state.body_mut(ino);
        if offset >= body.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut byte = [0];
        body.read(&mut byte, offset);
        body.write(&[byte[0] ^ mask], offset);
        body.sync();
        Ok(())
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A panic in one test thread must not hide behind a poisoned lock in another.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[derive(Clone, Default)]
struct State {
    inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    /// Name changes that no `sync_dir` has covered yet, oldest first.
    unsynced_names: Vec<NameChange>,
    /// Grows with each crash; handles of an earlier process are dead.
    process: u64,
    /// Locks held, each by the token of its holder.
    locked: BTreeMap<Ino, u64>,
    next_token: u64,
    capacity: Option<u64>,
    cold: bool,
    operations: u64,
    halt_after: Option<u64>,
    failing_sync: Option<u64>,
    has_failed_sync: bool,
    trace: Option<String>,
    /// Where each inode was last seen, for the trace.
    paths: BTreeMap<Ino, PathBuf>,
}

#[derive(Clone)]
enum Inode {
    File(Body),
    Dir(Dir),
}

#[derive(Clone, Default)]
struct Dir {
    mode: u32,
    entries: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
}

/// One change of the name space. A rename is one change: it is lost or kept whole.
#[derive(Clone)]
enum NameChange {
    Link { dir: Ino, name: String, ino: Ino },
    Unlink { dir: Ino, name: String },
    Rename { from_dir: Ino, from: String, to_dir: Ino, to: String, ino: Ino },
}

impl NameChange {
    fn touches(&self, synced: Ino) -> bool {
        match self {
            NameChange::Link { dir, .. } | NameChange::Unlink { dir, .. } => *dir == synced,
            // Made durable by the target's folder: a rename that only the source's folder knows could lose the file.
            NameChange::Rename { to_dir, .. } => *to_dir == synced,
        }
    }
}

/// A file's contents: sectors that were never written are zero and take no memory.
#[derive(Clone, Default)]
struct Body {
    /// The permission bits, if they were set.
    mode: Option<u32>,
    sectors: BTreeMap<u64, Sector>,
    len: u64,
    /// For each sector changed since the last sync, all it held since then, the durable content first.
    unsynced: BTreeMap<u64, Vec<Option<Sector>>>,
    /// All lengths since the last sync, the durable one first; the current one is not among them.
    unsynced_lens: Vec<u64>,
    /// What the disk has of the sectors that a failed sync has lost. They are in no other list.
    lost: BTreeMap<u64, Option<Sector>>,
}

impl Body {
    fn read(&self, buf: &mut [u8], offset: u64) {
        for_each_sector(offset, buf.len(), |sector, within, range| {
            let out = &mut buf[range];
            match self.sectors.get(&sector) {
                Some(data) => out.copy_from_slice(&data[within..within + out.len()]),
                None => out.fill(0),
            }
        });
    }

    fn write(&mut self, data: &[u8], offset: u64) {
        for_each_sector(offset, data.len(), |sector, within, range| {
            let part = &data[range];
            self.change_sector(sector, |bytes| bytes[within..within + part.len()].copy_from_slice(part));
        });
        let end = offset + data.len() as u64;
        if end > self.len {
            self.change_len(end);
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let keep = len.div_ceil(SECTOR_BYTES);
            let gone: Vec<u64> = self.sectors.range(keep..).map(|(&sector, _)| sector).collect();
            for sector in gone {
                let old = self.sectors.remove(&sector);
                self.was_changed(sector, old);
            }
            let within = (len % SECTOR_BYTES) as usize;
            if within != 0 && self.sectors.contains_key(&(keep - 1)) {
                self.change_sector(keep - 1, |bytes| bytes[within..].fill(0));
            }
        }
        if len != self.len {
            self.change_len(len);
        }
    }

    fn change_sector(&mut self, sector: u64, change: impl FnOnce(&mut [u8; SECTOR_BYTES as usize])) {
        let old = self.sectors.get(&sector).cloned();
        let mut bytes = old.as_ref().map_or([0; SECTOR_BYTES as usize], |sector| **sector);
        change(&mut bytes);
        self.was_changed(sector, old);
        self.sectors.insert(sector, Arc::new(bytes));
    }

    /// A sector that held `old` is to be written with the next sync.
    fn was_changed(&mut self, sector: u64, old: Option<Sector>) {
        let on_disk = self.lost.remove(&sector);
        self.unsynced.entry(sector).or_default().extend(on_disk.into_iter().chain([old]));
    }

    fn change_len(&mut self, len: u64) {
        self.unsynced_lens.push(self.len);
        self.len = len;
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.unsynced_lens.clear();
    }

    fn fail_sync(&mut self, draw: &mut Draw) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            if draw.below(2) == 1 {
                self.lost.extend(versions.into_iter().next().map(|on_disk| (sector, on_disk)));
            }
        }
    }

    fn forget_cached(&mut self) {
        for (sector, on_disk) in std::mem::take(&mut self.lost) {
            match on_disk {
                Some(data) => drop(self.sectors.insert(sector, data)),
                None => drop(self.sectors.remove(&sector)),
            }
        }
    }

    fn power_cut(&mut self, draw: &mut Draw) {
        self.forget_cached();
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            // One choice more than there are old versions: to keep what stands.
            let choice = draw.below(versions.len() as u64 + 1) as usize;
            match versions.into_iter().nth(choice) {
                Some(Some(data)) => drop(self.sectors.insert(sector, data)),
                Some(None) => drop(self.sectors.remove(&sector)),
                None => {}
            }
        }
        let lens = std::mem::take(&mut self.unsynced_lens);
        let choice = draw.below(lens.len() as u64 + 1) as usize;
        if let Some(&len) = lens.get(choice) {
            self.set_len(len);
            self.sync();
        }
        // A longer length without its sectors reads as zero, as after a crash between the two.
        let keep = self.len.div_ceil(SECTOR_BYTES);
        self.sectors.retain(|&sector, _| sector < keep);
    }
}

/// Calls `f(sector, first byte within it, range of the buffer)` for each sector that `offset..offset+len` touches.
fn for_each_sector(offset: u64, len: usize, mut f: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = (at % SECTOR_BYTES) as usize;
        let part = (SECTOR_BYTES as usize - within).min(len - done);
        f(at / SECTOR_BYTES, within, done..done + part);
        done += part;
    }
}

impl State {
    fn power_cut(&mut self, draw: &mut Draw) {
        let names = std::mem::take(&mut self.unsynced_names);
        for dir in self.inodes.values_mut() {
            if let Inode::Dir(dir) = dir {
                dir.entries = dir.durable.clone();
            }
        }
        for change in names {
            if draw.below(2) == 1 {
                self.apply_name(&change, true);
                self.apply_name(&change, false);
            }
        }
        for inode in self.inodes.values_mut() {
            if let Inode::File(body) = inode {
                body.power_cut(draw);
            }
        }
    }

    fn forget_process(&mut self) {
        self.process += 1;
        self.locked.clear();
        self.halt_after = None;
        self.failing_sync = None;
        self.has_failed_sync = false;
    }

    /// Counts a changing operation, records it, and refuses it once the limit set by `halt_after` is used up.
    fn operation(&mut self, line: impl FnOnce(&State) -> String) -> io::Result<()> {
        if let Some(left) = &mut self.halt_after {
            *left =
                left.checked_sub(1).ok_or_else(|| io::Error::other("the simulated machine has halted"))?;
        }
        self.operations += 1;
        if self.trace.is_some() {
            let line = line(self);
            if let Some(trace) = &mut self.trace {
                let _ = writeln!(trace, "{line}");
            }
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let (mut open, mut sum) = (vec![ROOT], 0);
        while let Some(ino) = open.pop() {
            match &self.inodes[&ino] {
                Inode::File(_) => sum += self.body(ino).len,
                Inode::Dir(dir) => open.extend(dir.entries.values()),
            }
        }
        sum
    }

    /// Whether a file may grow from `len` to `to` bytes.
    fn make_room(&self, len: u64, to: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if to > len && self.used() + (to - len) > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn walk(&self, dir: Ino, at: &Path, files: &mut Vec<(PathBuf, Ino)>) {
        let Some(Inode::Dir(dir)) = self.inodes.get(&dir) else { return };
        for (name, &ino) in &dir.entries {
            match &self.inodes[&ino] {
                Inode::File(_) => files.push((at.join(name), ino)),
                Inode::Dir(_) => self.walk(ino, &at.join(name), files),
            }
        }
    }

    fn new_inode(&mut self, inode: Inode, path: &Path) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        self.inodes.insert(ino, inode);
        self.paths.insert(ino, path.to_owned());
        ino
    }

    fn lookup(&self, path: &Path) -> io::Result<Ino> {
        let mut ino = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                ino = *self.dir(ino)?.entries.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(ino)
    }

    fn file_at(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.lookup(path)?;
        match self.inodes[&ino] {
            Inode::File(_) => Ok(ino),
            Inode::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn parent_of(&self, path: &Path) -> io::Result<(Ino, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.lookup(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name.to_owned()))
    }

    fn dir(&self, ino: Ino) -> io::Result<&Dir> {
        match &self.inodes[&ino] {
            Inode::Dir(dir) => Ok(dir),
            Inode::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// # Panics
    /// If `ino` is no file: callers looked it up as one.
    fn body(&self, ino: Ino) -> &Body {
        match &self.inodes[&ino] {
            Inode::File(body) => body,
            Inode::Dir(_) => panic!("inode {ino} is a folder"),
        }
    }

    fn body_mut(&mut self, ino: Ino) -> &mut Body {
        match self.inodes.get_mut(&ino) {
            Some(Inode::File(body)) => body,
            _ => panic!("inode {ino} is no file"),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        self.apply_name(&change, false);
        self.unsynced_names.push(change);
    }

    fn sync_names(&mut self, dir: Ino) {
        for change in std::mem::take(&mut self.unsynced_names) {
            if change.touches(dir) {
                self.apply_name(&change, true);
            } else {
                self.unsynced_names.push(change);
            }
        }
    }

    fn apply_name(&mut self, change: &NameChange, durable: bool) {
        match change {
            NameChange::Link { dir, name, ino } => drop(self.names(*dir, durable).insert(name.clone(), *ino)),
            NameChange::Unlink { dir, name } => drop(self.names(*dir, durable).remove(name)),
            NameChange::Rename { from_dir, from, to_dir, to, ino } => {
                let source = self.names(*from_dir, durable);
                // The name may mean another file already, if an earlier change of it was lost.
                if source.get(from) == Some(ino) {
                    source.remove(from);
                }
                self.names(*to_dir, durable).insert(to.clone(), *ino);
            }
        }
    }

    fn names(&mut self, dir: Ino, durable: bool) -> &mut BTreeMap<String, Ino> {
        match self.inodes.get_mut(&dir) {
            Some(Inode::Dir(Dir { entries, durable: synced, .. })) => {
                if durable {
                    synced
                } else {
                    entries
                }
            }
            _ => panic!("inode {dir} is no folder"),
        }
    }

    fn path(&self, ino: Ino) -> String {
        self.paths.get(&ino).map_or_else(String::new, |path| path.display().to_string())
    }
}

impl Fs for MemFs {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock_state();
        let ino = if access == Access::CreateNew {
            let (dir, name) = state.parent_of(path)?;
            if state.dir(dir)?.entries.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.operation(|_| format!("create {}", path.display()))?;
            let ino = state.new_inode(Inode::File(Body::default()), path);
            state.change_name(NameChange::Link { dir, name, ino });
            ino
        } else {
            state.file_at(path)?
        };
        state.next_token += 1;
        let token = state.next_token;
        let process = state.process;
        let writable = access != Access::Read;
        Ok(Arc::new(MemFile { state: self.state.clone(), ino, process, token, writable }))
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.lock_state();
        let mut at = PathBuf::new();
        let mut parent = ROOT;
        for component in path.components() {
            at.push(component);
            let Component::Normal(name) = component else { continue };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            parent = match state.dir(parent)?.entries.get(name) {
                Some(&ino) => ino,
                None => {
                    state.operation(|_| format!("mkdir {}", at.display()))?;
                    let ino = state.new_inode(Inode::Dir(Dir { mode, ..Dir::default() }), &at);
                    state.change_name(NameChange::Link { dir: parent, name: name.to_owned(), ino });
                    ino
                }
            };
        }
        state.dir(parent).map(|_| ())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.lock_state();
        let dir = state.lookup(path)?;
        Ok(state.dir(dir)?.entries.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.lock_state().lookup(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        let state = self.lock_state();
        let ino = state.lookup(path)?;
        Ok(match &state.inodes[&ino] {
            Inode::Dir(dir) => dir.mode,
            Inode::File(body) => body.mode.unwrap_or(0o600),
        })
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.lock_state();
        let ino = state.lookup(path)?;
        state.operation(|_| format!("chmod {mode:o} {}", path.display()))?;
        match state.inodes.get_mut(&ino) {
            Some(Inode::Dir(dir)) => dir.mode = mode,
            Some(Inode::File(body)) => body.mode = Some(mode),
            None => {}
        }
        Ok(())
    }

    /// All is one user's here.
    fn take_owner(&self, path: &Path, of: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.lookup(path)?;
        state.lookup(of)?;
        state.operation(|_| format!("chown {} as {}", path.display(), of.display()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        let (from_dir, from_name) = state.parent_of(from)?;
        let (to_dir, to_name) = state.parent_of(to)?;
        let ino = *state.dir(from_dir)?.entries.get(&from_name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(&old) = state.dir(to_dir)?.entries.get(&to_name)
            && let Ok(dir) = state.dir(old)
            && !dir.entries.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.operation(|_| format!("rename {} -> {}", from.display(), to.display()))?;
        state.change_name(NameChange::Rename { from_dir, from: from_name, to_dir, to: to_name, ino });
        if state.dir(ino).is_ok() {
            for path in state.paths.values_mut() {
                if let Ok(rest) = path.strip_prefix(from) {
                    *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
                }
            }
        } else {
            // A file is renamed often, and nothing lies below it.
            state.paths.insert(ino, to.to_owned());
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.file_at(path)?;
        let (dir, name) = state.parent_of(path)?;
        state.operation(|_| format!("remove {}", path.display()))?;
        state.change_name(NameChange::Unlink { dir, name });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        let dir = state.lookup(path)?;
        state.dir(dir)?;
        state.operation(|_| format!("sync-dir {}", path.display()))?;
        state.sync_names(dir);
        Ok(())
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        let mut state = self.lock_state();
        let ino = state.lookup(path)?;
        state.next_token += 1;
        let token = state.next_token;
        state.take_lock(ino, token)?;
        Ok(DirLock::new(MemLock { state: Arc::downgrade(&self.state), ino, token }))
    }
}

impl State {
    fn take_lock(&mut self, ino: Ino, token: u64) -> io::Result<()> {
        match self.locked.get(&ino) {
            Some(&holder) if holder != token => Err(io::ErrorKind::WouldBlock.into()),
            _ => {
                self.locked.insert(ino, token);
                Ok(())
            }
        }
    }

    fn release_lock(&mut self, ino: Ino, token: u64) {
        if self.locked.get(&ino) == Some(&token) {
            self.locked.remove(&ino);
        }
    }
}

struct MemLock {
    state: Weak<Mutex<State>>,
    ino: Ino,
    token: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            lock(&state).release_lock(self.ino, self.token);
        }
    }
}

struct MemFile {
    state: Arc<Mutex<State>>,
    ino: Ino,
    process: u64,
    token: u64,
    writable: bool,
}

impl MemFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.process == self.process {
            Ok(state)
        } else {
            Err(io::Error::other("the process that opened this file was killed"))
        }
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.writable { self.alive() } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for MemFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.alive()?;
        let body = state.body(self.ino);
        if offset + buf.len() as u64 > body.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body.read(buf, offset);
        Ok(())
    }

    fn read_exact_at_nowait(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        if self.alive()?.cold {
            return Ok(false);
        }
        self.read_exact_at(buf, offset).map(|()| true)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        state.make_room(state.body(self.ino).len, offset + data.len() as u64)?;
        state.operation(|state| format!("write {} @{offset} +{}", state.path(self.ino), data.len()))?;
        state.body_mut(self.ino).write(data, offset);
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        state.body_mut(self.ino).forget_cached();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        state.operation(|state| format!("sync {}", state.path(self.ino)))?;
        if let Some(seed) = state.failing_sync.take() {
            state.has_failed_sync = true;
            state.body_mut(self.ino).fail_sync(&mut Draw(seed));
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        state.body_mut(self.ino).sync();
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        let old = state.body(self.ino).len;
        state.make_room(old, len)?;
        state.operation(|state| format!("allocate {} {len}", state.path(self.ino)))?;
        if len > old {
            state.body_mut(self.ino).set_len(len);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        state.make_room(state.body(self.ino).len, len)?;
        state.operation(|state| format!("set-len {} {len}", state.path(self.ino)))?;
        state.body_mut(self.ino).set_len(len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.body(self.ino).len)
    }

    fn lock(&self) -> io::Result<()> {
        self.alive()?.take_lock(self.ino, self.token)
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        lock(&self.state).release_lock(self.ino, self.token);
    }
}

/// SplitMix64: the choices of one power cut.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

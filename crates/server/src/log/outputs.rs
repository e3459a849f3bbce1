//! Where the log goes: standard streams, files, a file that is rotated, the journal.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use nix::unistd::AccessFlags;
use serde::Deserialize;
use thiserror::Error;

use super::Level;
use crate::config::quote;

const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// In the names of rotated files; lumberjack's, which etcd uses.
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S.%3f";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A file that could not be moved away is left to grow for so long.
const ROTATE_RETRY: Duration = Duration::from_secs(1);

/// Why the log can't go where it is to go. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the text is the documentation")]
pub enum OutputError {
    #[error("multi logoutput for \"default\" is not supported yet")]
    DefaultAmongOthers,
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    RotationTarget,
    #[error("{0}")]
    RotationConfig(String),
    #[error(
        "running with systemd/journal but other '--log-outputs' values ({0}) are configured with 'default'; \
         override 'default' value with something else"
    )]
    JournalAmongOthers(String),
    #[error("can't find journal ({0})")]
    NoJournal(String),
    #[error("open sink {}: open {path}: {why}", quote(path))]
    Open { path: String, why: String },
}

/// What `--log-outputs` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `stderr`, and the default.
    Stderr,
    /// `stdout`.
    Stdout,
    /// `systemd/journal`.
    Journal,
    /// A file, which grows.
    File(String),
    /// A file that is moved away when it is long.
    Rotated(String, Rotation),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Stderr => "stderr",
            Target::Stdout => "stdout",
            Target::Journal => "systemd/journal",
            Target::File(path) | Target::Rotated(path, _) => path,
        })
    }
}

impl Target {
    /// Whether it could be opened now. Nothing is made.
    ///
    /// # Errors
    /// What opening it would say, as far as can be known.
    pub fn check(&self) -> Result<(), OutputError> {
        let (path, makes_folder) = match self {
            Target::Stderr | Target::Stdout => return Ok(()),
            Target::Journal => return Output::open(self).map(drop),
            Target::File(path) => (path, false),
            Target::Rotated(path, _) => (path, true),
        };
        let failed =
            |error: io::Error| OutputError::Open { path: path.clone(), why: crate::go_error(&error) };
        match OpenOptions::new().append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(drop).map_err(failed),
        }
        let mut folder = folder_of(Path::new(path));
        while makes_folder && !folder.exists() {
            folder = folder_of(folder);
        }
        nix::unistd::access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|error| failed(error.into()))
    }
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `--log-rotation-config-json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rotation {
    /// Megabytes before a file is moved away; 0 means 100.
    pub maxsize: u64,
    /// Days for which moved files are kept; 0 keeps them.
    pub maxage: u64,
    /// How many of them are kept; 0 keeps all.
    pub maxbackups: usize,
    /// Whether their names have the local time.
    pub localtime: bool,
    /// Whether they are compressed.
    pub compress: bool,
}

impl Rotation {
    fn bytes_max(&self) -> u64 {
        (if self.maxsize == 0 { 100 } else { self.maxsize }).saturating_mul(1 << 20)
    }
}

/// Reads `--log-outputs`, and with it what rotation is told, if it is on.
///
/// # Errors
/// See [`OutputError`].
pub fn targets(outputs: &[String], rotation: Option<&str>) -> Result<Vec<Target>, OutputError> {
    let outputs: Vec<&str> = match outputs {
        [] => vec!["default"],
        given => given.iter().map(String::as_str).collect(),
    };
    if outputs.len() > 1 && outputs.contains(&"default") {
        return Err(OutputError::DefaultAmongOthers);
    }
    let rotation = match rotation {
        None => None,
        Some(text) => {
            let is_file = |output: &&&str| !matches!(**output, "default" | "stderr" | "stdout");
            let files = outputs.iter().filter(is_file).count();
            if files > 1 || (files == 0 && outputs.len() == 1) {
                return Err(OutputError::RotationTarget);
            }
            Some(rotation_of(text)?)
        }
    };
    if outputs.contains(&"systemd/journal") && outputs.len() > 1 {
        let all = outputs.iter().map(|output| quote(output)).collect::<Vec<_>>().join(" ");
        return Err(OutputError::JournalAmongOthers(format!("[{all}]")));
    }
    let mut targets: Vec<Target> = Vec::new();
    for output in outputs {
        let target = match (output, &rotation) {
            ("default" | "stderr", _) => Target::Stderr,
            ("stdout", _) => Target::Stdout,
            ("systemd/journal", _) => Target::Journal,
            (path, Some(rotation)) => Target::Rotated(path.to_owned(), rotation.clone()),
            (path, None) => Target::File(path.to_owned()),
        };
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    // As etcd: who names it wants no log, wherever else it were to go.
    if targets.contains(&Target::File("/dev/null".to_owned())) {
        targets = vec![Target::File("/dev/null".to_owned())];
    }
    Ok(targets)
}

fn rotation_of(text: &str) -> Result<Rotation, OutputError> {
    serde_json::from_str(text).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "invalid",
            _ => "improperly formatted",
        };
        OutputError::RotationConfig(format!("{kind} log rotation config: {error}"))
    })
}

/// An open output.
pub(super) enum Output {
    Stderr,
    Stdout,
    Journal(UnixDatagram),
    File(File),
    Rotated(Mutex<Rotated>),
}

impl Output {
    pub(super) fn open(target: &Target) -> Result<Output, OutputError> {
        let failed = |path: &str, error: io::Error| OutputError::Open {
            path: path.to_owned(),
            why: crate::go_error(&error),
        };
        Ok(match target {
            Target::Stderr => Output::Stderr,
            Target::Stdout => Output::Stdout,
            Target::Journal => {
                let journal = UnixDatagram::unbound().and_then(|socket| {
                    socket.connect(JOURNAL_SOCKET)?;
                    Ok(socket)
                });
                Output::Journal(journal.map_err(|error| OutputError::NoJournal(crate::go_error(&error)))?)
            }
            Target::File(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o666).open(path);
                Output::File(file.map_err(|error| failed(path, error))?)
            }
            Target::Rotated(path, rotation) => {
                let rotated = Rotated::open(Path::new(path), rotation.clone());
                Output::Rotated(Mutex::new(rotated.map_err(|error| failed(path, error))?))
            }
        })
    }

    /// Writes a line. One that can't be written is lost where nothing else is left to say so.
    pub(super) fn write(&self, level: Level, caller: &str, line: &str) {
        let _ = match self {
            Output::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Output::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Output::File(file) => (&*file).write_all(line.as_bytes()),
            Output::Rotated(rotated) => {
                rotated.lock().unwrap_or_else(PoisonError::into_inner).write(line.as_bytes())
            }
            Output::Journal(socket) => match socket.send(entry(level, caller, line).as_bytes()) {
                Ok(_) => Ok(()),
                // Too long, or the journal restarts.
                Err(_) => io::stderr().lock().write_all(line.as_bytes()),
            },
        };
    }
}

/// A line in the journal's own protocol.
fn entry(level: Level, caller: &str, line: &str) -> String {
    let priority = match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Error => 3,
        Level::Dpanic | Level::Panic | Level::Fatal => 2,
    };
    let package = caller.split('/').next().unwrap_or_default();
    format!("PRIORITY={priority}\nPACKAGE={package}\nSYSLOG_IDENTIFIER=etcd\nMESSAGE={}\n", line.trim_end())
}

/// A file that is moved away when it is long.
pub(super) struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
    /// When to try again to move a file away that could not be moved.
    retry_at: Option<Instant>,
    /// What was begun last to clear up those that were.
    tidying: Option<JoinHandle<()>>,
}

impl Rotated {
    fn open(path: &Path, rotation: Rotation) -> io::Result<Rotated> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        let mut rotated =
            Rotated { path: path.to_owned(), rotation, file, bytes, retry_at: None, tidying: None };
        // What the last run has left, and what is too old by now.
        rotated.tidy()?;
        Ok(rotated)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let is_long = self.bytes > 0 && self.bytes + length > self.rotation.bytes_max();
        if is_long && self.retry_at.is_none_or(|at| Instant::now() >= at) {
            // A file that can't be moved goes on to grow: lines are worth more than its size.
            let failed = self.rotate().is_err();
            self.retry_at = failed.then(|| Instant::now() + ROTATE_RETRY);
        }
        self.file.write_all(line)?;
        self.bytes += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mode = self.file.metadata()?.permissions().mode() & 0o777;
        let backup = self.backup();
        self.rotate_to(&backup, |path| {
            OpenOptions::new().append(true).create_new(true).mode(mode).open(path)
        })?;
        self.tidy()
    }

    /// `make`: opens the file that comes next.
    fn rotate_to(&mut self, backup: &Path, make: impl FnOnce(&Path) -> io::Result<File>) -> io::Result<()> {
        match fs::rename(&self.path, backup) {
            // Somebody else has taken it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        let fresh = make(&self.path).inspect_err(|_| {
            // Lines go on into the old one, so that has to be where they are looked for.
            let _ = fs::rename(backup, &self.path);
        })?;
        (self.file, self.bytes) = (fresh, 0);
        Ok(())
    }

    /// Has old files cleared up, on a thread of its own: compressing takes long, and whoever logs holds the lock.
    fn tidy(&mut self) -> io::Result<()> {
        let (path, rotation) = (self.path.clone(), self.rotation.clone());
        if rotation.maxbackups > 0 || rotation.maxage > 0 || rotation.compress {
            let thread = std::thread::Builder::new().name("log-files".into());
            self.tidying = Some(thread.spawn(move || tidy(&path, &rotation))?);
        }
        Ok(())
    }

    /// `etcd.log` becomes `etcd-2026-11-30T05-00-00.000.log`.
    #[expect(clippy::disallowed_methods, reason = "a file's name is for people")]
    fn backup(&self) -> PathBuf {
        let now = match self.rotation.localtime {
            true => ZonedDateTime::now(),
            false => Timestamp::now().to_zoned_datetime(TimeZone::UTC),
        };
        let (stem, end) = parts(&self.path);
        self.path.with_file_name(format!("{stem}-{}{end}", now.strftime(BACKUP_TIME)))
    }
}

/// The name before its last dot, and the rest.
fn parts(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let end = path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    (stem, end)
}

/// Removes what is too old or too much, and compresses the rest. Runs one at a time.
fn tidy(path: &Path, rotation: &Rotation) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (stem, end) = parts(path);
    let folder = folder_of(path);
    let is_backup = |name: &str| {
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let time = name.strip_prefix(&*format!("{stem}-")).and_then(|name| name.strip_suffix(&*end));
        time.is_some_and(|time| jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", time).is_ok())
    };
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut backups: Vec<PathBuf> =
        found.filter(|file| is_backup(&file.file_name().to_string_lossy())).map(|file| file.path()).collect();
    // By their times, the newest first.
    backups.sort();
    backups.reverse();
    let is_old = |file: &Path| {
        let modified = file.metadata().and_then(|meta| meta.modified()).ok();
        let age = modified.and_then(|modified| modified.elapsed().ok());
        rotation.maxage > 0
            && age.is_some_and(|age| age > DAY * u32::try_from(rotation.maxage).unwrap_or(u32::MAX))
    };
    for (place, file) in backups.iter().enumerate() {
        if (rotation.maxbackups > 0 && place >= rotation.maxbackups) || is_old(file) {
            let _ = fs::remove_file(file);
        } else if rotation.compress && file.extension().is_none_or(|end| end != "gz") {
            let _ = compress(file);
        }
    }
}

fn compress(file: &Path) -> io::Result<()> {
    let packed = PathBuf::from(format!("{}.gz", file.display()));
    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&packed)?;
    let mut packer = GzEncoder::new(out, Compression::default());
    let done = io::copy(&mut File::open(file)?, &mut packer).and_then(|_| packer.finish()?.sync_all());
    match done {
        Ok(()) => fs::remove_file(file),
        Err(error) => {
            let _ = fs::remove_file(&packed);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn of(outputs: &str, rotation: Option<&str>) -> Result<Vec<Target>, String> {
        let outputs: Vec<String> = outputs.split(',').map(str::to_owned).collect();
        targets(&outputs, rotation).map_err(|error| error.to_string())
    }

    #[test]
    fn outputs_are_etcds() {
        assert_eq!(of("default", None), Ok(vec![Target::Stderr]));
        assert_eq!(of("stdout,stderr,stdout", None), Ok(vec![Target::Stdout, Target::Stderr]));
        assert_eq!(of("a,/dev/null", None), Ok(vec![Target::File("/dev/null".into())]));
        assert_eq!(
            of("default,a", None).unwrap_err(),
            "multi logoutput for \"default\" is not supported yet"
        );
        assert!(of("systemd/journal,a", None).unwrap_err().contains("([\"systemd/journal\" \"a\"])"));
        let single = "--log-outputs requires a single file path when --log-rotate-config-json is defined";
        assert_eq!(of("stderr", Some("{}")).unwrap_err(), single);
        assert_eq!(of("a,b", Some("{}")).unwrap_err(), single);
        assert!(of("a,stderr", Some("{\"maxsize\": 1}")).is_ok());
        assert!(of("a", Some("{")).unwrap_err().starts_with("improperly formatted log rotation config: "));
        assert!(
            of("a", Some("{\"maxsize\": true}")).unwrap_err().starts_with("invalid log rotation config: ")
        );
    }

    /// Somebody else is at the folder, or there is no descriptor left.
    #[test]
    fn lines_are_where_they_are_looked_for_when_a_file_cannot_be_moved_away() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("etcd.log");
        let mut log = Rotated::open(&path, Rotation { maxsize: 1, ..Rotation::default() }).unwrap();
        let line = vec![b'x'; 700 << 10];
        log.write(&line).unwrap();
        let backup = log.backup();
        let moved = log.rotate_to(&backup, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(moved.is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), line.len() as u64, "it is back in its place");
        assert!(!backup.exists());
        fs::remove_file(&path).unwrap();
        log.write(&line).unwrap();
        assert_eq!(log.bytes, line.len() as u64);
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            line.len() as u64,
            "one that was taken away is made anew"
        );
    }

    #[test]
    fn what_an_earlier_run_has_left_is_tidied_at_the_start() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("etcd.log");
        for hour in 1..5 {
            fs::write(place.path().join(format!("etcd-2026-01-01T0{hour}-00-00.000.log")), "old").unwrap();
        }
        let rotation = Rotation { maxbackups: 1, ..Rotation::default() };
        let mut log = Rotated::open(&path, rotation).unwrap();
        log.tidying.take().expect("it was begun").join().unwrap();
        let left: Vec<_> =
            fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn a_long_file_is_moved_away_and_old_ones_go() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("logs/etcd.log");
        let rotation = Rotation { maxsize: 1, maxbackups: 2, compress: true, ..Rotation::default() };
        let mut log = Rotated::open(&path, rotation.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let line = vec![b'x'; 300 << 10];
        for _ in 0..4 {
            log.write(&line).unwrap();
        }
        assert_eq!(log.bytes, line.len() as u64, "the fourth line did not fit");
        drop(log);
        // Others that were moved away before.
        for hour in 1..5 {
            let name = format!("etcd-2026-01-01T0{hour}-00-00.000.log");
            fs::write(path.with_file_name(name), "old").unwrap();
        }
        fs::write(path.with_file_name("etcd-other.log"), "not one of these").unwrap();
        tidy(&path, &rotation);
        let mut left: Vec<String> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left.len(), 4, "{left:?}");
        assert_eq!(left[0], "etcd-2026-01-01T04-00-00.000.log.gz");
        assert!(left[1].ends_with(".log.gz") && left[2] == "etcd-other.log" && left[3] == "etcd.log");
        let packed = File::open(path.with_file_name(&left[1])).unwrap();
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut whole).unwrap();
        assert_eq!(whole.len(), 3 * line.len());
    }
}

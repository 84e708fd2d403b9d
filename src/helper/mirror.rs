//! What files that mirror the blocks have in common: when they are written, what is told of failures, and how one is replaced.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::backoff::Backoff;
use crate::config::distrust;
use crate::sys::files;
use crate::sys::replace::{Directory, Failed, OpenedFile, Stamp};

use super::protocol::Word;

/// A file is looked at this often: an editor that saves an old buffer over it tells nobody.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The wait after the first failure; it doubles with each further one. Most that fails passes at once (a lock, an editor) or stays for long.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest wait between two attempts: a disk that is well again is noticed within a minute.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Attempts when the file changes under our hands, before the next wait: who writes so often is no editor.
const ATTEMPTS: usize = 5;

/// Why a file is not as it should be.
#[derive(Debug)]
pub enum Error {
    /// The system refused.
    Io {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Another process holds the directory's lock.
    Locked(PathBuf),
    /// It changes faster than it can be replaced.
    Changing(PathBuf),
    /// It is something else than a regular file.
    NotAFile(PathBuf),
    /// It is a symbolic link to nothing.
    LeadsNowhere(PathBuf),
    /// It is a symbolic link, and others than root can let it lead elsewhere: why, and the remedy.
    Distrusted(PathBuf, String, String),
    /// It has content, and none of it is ours.
    Foreign(PathBuf),
    /// It has more bytes of others than this.
    TooLarge(PathBuf, u64),
    /// Our marks in it cannot be made sense of: what is wrong, and in which line, from 1.
    Damaged(PathBuf, &'static str, usize),
}

impl Error {
    /// Whether the next attempt will most likely succeed, so that nobody need hear of this one.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Locked(_) | Self::Changing(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { verb, path, error } => {
                write!(f, "cannot {verb} {}", path.display())?;
                match error.kind() {
                    // EPERM, not EACCES: not even root may.
                    _ if Errno::from_io_error(error) == Some(Errno::PERM) => f.write_str(" (chattr -i, if it is immutable)"),
                    io::ErrorKind::ReadOnlyFilesystem => f.write_str(" (a service that is kept from its directory needs it in ReadWritePaths=)"),
                    io::ErrorKind::NotFound => f.write_str(" (its directory must exist)"),
                    io::ErrorKind::ResourceBusy => f.write_str(" (it is a mount of its own: mount its directory instead)"),
                    _ => Ok(()),
                }
            }
            Self::Locked(path) => write!(f, "another process keeps the lock of {}", path.display()),
            Self::Changing(path) => write!(f, "{} is changed by others without a pause", path.display()),
            Self::NotAFile(path) => write!(f, "{} is not a regular file", path.display()),
            Self::LeadsNowhere(path) => write!(f, "{} is a link that leads nowhere", path.display()),
            Self::Distrusted(path, why, remedy) => write!(f, "the link {} is not followed: {why} ({remedy})", path.display()),
            Self::Foreign(path) => {
                write!(
                    f,
                    "{} has content and not one line of a blocked host: it is left to whom it belongs; move it away, or change blocked_file",
                    path.display()
                )
            }
            Self::TooLarge(path, limit) => write!(f, "{} has more than {limit} bytes of others", path.display()),
            Self::Damaged(path, what, line) => {
                write!(f, "{}:{line}: {what}; mend the marks of portsentry, or remove all lines from the first to the last of them", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What is kept true to the blocks: one file, or some that belong together.
pub(super) trait Kept: Send {
    /// Whether it is as it should be, as far as known.
    fn is_idle(&self) -> bool;
    /// How long until [`Kept::write`] has something to do; `None`: not before something else happens.
    fn next_due(&mut self, now: Instant) -> Option<Duration>;
    /// Writes what is due, looks whether others changed it, and gives what is to be told. Cheap when nothing is due.
    fn write(&mut self, now: Instant) -> Vec<Word>;
}

/// When to write, and what of its failing was told.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Changes are gathered for this long.
    gather: Duration,
    changed: bool,
    due: Option<Instant>,
    look_at: Option<Instant>,
    backoff: Backoff,
    /// The words of the failure that was told.
    told: Option<String>,
}

impl Schedule {
    pub(super) fn new(gather: Duration) -> Self {
        Self { gather, changed: false, due: None, look_at: None, backoff: Backoff::new(RETRY_FIRST, RETRY_MAX), told: None }
    }

    /// What is wanted is not what was written.
    pub(super) fn on_change(&mut self) {
        self.changed = true;
    }

    /// What is wanted shall be written without waiting for more.
    pub(super) fn on_last_change(&mut self, now: Instant) {
        self.changed = true;
        self.due = Some(now);
    }

    /// Whether all that is wanted was written.
    pub(super) fn is_idle(&self) -> bool {
        !self.changed
    }

    /// How long until there is something to do.
    pub(super) fn next_due(&mut self, now: Instant) -> Duration {
        if self.changed && self.due.is_none() {
            self.due = Some(now + self.gather);
        }
        let look_at = *self.look_at.get_or_insert(now + LOOK_EVERY);
        self.due.map_or(look_at, |due| due.min(look_at)).saturating_duration_since(now)
    }

    /// What to do now.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if !self.next_due(now).is_zero() {
            Turn::Nothing
        } else if self.changed && self.due.is_some_and(|due| due <= now) {
            Turn::Write
        } else if self.changed {
            // A failure is retried at its time, not at every look.
            self.look_at = Some(now + LOOK_EVERY);
            Turn::Nothing
        } else {
            Turn::Look
        }
    }

    /// Notes how it went; `what` is the file's name.
    pub(super) fn on_result(&mut self, now: Instant, result: Result<(), Error>, what: &Path, told: &mut Vec<Word>) {
        self.look_at = Some(now + LOOK_EVERY);
        match result {
            Ok(()) => {
                self.changed = false;
                self.due = None;
                self.backoff.reset();
                if self.told.take().is_some() {
                    told.push(Word::Warning(format!("{} is as it should be again", what.display())));
                }
            }
            Err(error) => {
                let wait = self.backoff.fail();
                self.due = Some(now + wait);
                self.changed = true;
                let words = words(&error);
                // One that passes is told when it did not, after some seconds.
                let early = error.is_passing() && wait < RETRY_FIRST * 8;
                if !early && self.told.as_ref() != Some(&words) {
                    told.push(Word::Error(format!("{words}; what is to be written there is kept, and tried again")));
                    self.told = Some(words);
                }
            }
        }
    }
}

/// What a schedule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Nothing,
    /// See whether another has changed the file.
    Look,
    /// Write what is wanted.
    Write,
}

fn words(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// One file that is replaced as a whole.
#[derive(Debug)]
pub(super) struct Mirror {
    path: PathBuf,
    /// Its mode when it is new.
    mode: u32,
    /// Bytes of it that are read at most.
    limit: u64,
    /// As it was written, or found to be right.
    stamp: Option<Stamp>,
    /// What was told of a link, and of attributes that were lost, so that it is told once.
    told: Vec<String>,
}

/// What is to become of a file.
pub(super) struct Wanted<R> {
    /// The bytes; `None`: leave it as it is.
    pub(super) bytes: Option<Vec<u8>>,
    /// What to remember if that succeeds.
    pub(super) result: R,
}

impl Mirror {
    pub(super) fn new(path: PathBuf, mode: u32, limit: u64) -> Self {
        Self { path, mode, limit, stamp: None, told: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a file, or something else of that name.
    pub(super) fn exists(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok()
    }

    /// Whether the file is not the one that was written. One that cannot be looked at has changed: the attempt to write it tells why.
    pub(super) fn is_changed(&self) -> bool {
        Stamp::at(&self.path).map_or(true, |stamp| stamp != self.stamp)
    }

    /// Reads the file, `None` if there is none, without any change.
    pub(super) fn read(&mut self, told: &mut Vec<Word>) -> Result<Option<Vec<u8>>, Error> {
        let real = self.real(told)?;
        Ok(self.found(&real)?.map(|(_, bytes)| bytes))
    }

    /// Reads the file, asks what shall become of it, and replaces it; again if it was changed by another meanwhile. Gives what was decided, and
    /// whether the file was replaced.
    pub(super) fn update<R>(
        &mut self,
        told: &mut Vec<Word>,
        mut decide: impl FnMut(Option<&[u8]>) -> Result<Wanted<R>, Error>,
    ) -> Result<(R, bool), Error> {
        let real = self.real(told)?;
        let failed = |verb, error| Error::Io { verb, path: real.clone(), error };
        let (Some(directory), Some(name)) = (real.parent(), real.file_name()) else { return Err(Error::NotAFile(real)) };
        let locked = Directory::lock(directory).map_err(|error| failed("lock the directory of", error))?;
        let locked = locked.ok_or_else(|| Error::Locked(directory.to_owned()))?;
        for _ in 0..ATTEMPTS {
            let found = self.found(&real)?;
            let Wanted { bytes, result } = decide(found.as_ref().map(|(_, bytes)| bytes.as_slice()))?;
            let found = found.map(|(found, _)| found);
            let Some(bytes) = bytes else {
                self.stamp = found.as_ref().map(OpenedFile::stamp);
                return Ok((result, false));
            };
            match locked.replace(name, &bytes, found.as_ref(), self.mode) {
                Ok(replaced) => {
                    self.stamp = Some(replaced.stamp);
                    for name in replaced.lost {
                        self.tell_once(format!("{} has lost its attribute {name}: the system let nobody copy it", real.display()), told);
                    }
                    return Ok((result, true));
                }
                Err(Failed::Changed) => {}
                Err(Failed::Io(verb, error)) => return Err(failed(verb, error)),
            }
        }
        Err(Error::Changing(real))
    }

    /// The file itself: where it is a link, what that leads to, if nobody but root can let it lead elsewhere.
    fn real(&mut self, told: &mut Vec<Word>) -> Result<PathBuf, Error> {
        let look = |error| Error::Io { verb: "look at", path: self.path.clone(), error };
        match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_symlink() => {}
            Ok(_) => return Ok(self.path.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.path.clone()),
            Err(error) => return Err(look(error)),
        }
        let real = match std::fs::canonicalize(&self.path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::LeadsNowhere(self.path.clone())),
            Err(error) => return Err(look(error)),
        };
        let facts = files::facts_at(&real).map_err(look)?;
        if let Some((why, remedy)) = distrust(&self.path, &facts).into_iter().next() {
            return Err(Error::Distrusted(self.path.clone(), why, remedy));
        }
        self.tell_once(format!("{} is a link: {} is rewritten, and the link stays", self.path.display(), real.display()), told);
        Ok(real)
    }

    fn found(&self, real: &Path) -> Result<Option<(OpenedFile, Vec<u8>)>, Error> {
        let failed = |error| Error::Io { verb: "read", path: real.to_owned(), error };
        let Some(mut found) = OpenedFile::open(real).map_err(failed)? else { return Ok(None) };
        if !found.is_regular() {
            return Err(Error::NotAFile(real.to_owned()));
        }
        if found.size() > self.limit {
            return Err(Error::TooLarge(real.to_owned(), self.limit));
        }
        // One byte more than allowed: the file may have grown since.
        let bytes = found.read_up_to(self.limit + 1).map_err(failed)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > self.limit {
            return Err(Error::TooLarge(real.to_owned(), self.limit));
        }
        Ok(Some((found, bytes)))
    }

    /// Tells that another's change was undone.
    pub(super) fn tell_mended(&self, told: &mut Vec<Word>) {
        told.push(Word::Warning(format!("{} was changed by others and is as it should be again", self.path.display())));
    }

    fn tell_once(&mut self, text: String, told: &mut Vec<Word>) {
        // A handful: the link's target and a few attributes. More than that is somebody who changes the link all the time.
        const TOLD_MAX: usize = 16;
        if self.told.len() < TOLD_MAX && !self.told.contains(&text) {
            told.push(Word::Warning(text.clone()));
            self.told.push(text);
        }
    }
}

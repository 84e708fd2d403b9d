//! Common parts of files that list the blocks: when to write, how to report failures, how to
//! replace a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::backoff::Backoff;
use crate::config::distrust;
use crate::sys::files;
use crate::sys::replace::{Directory, Failed, OpenedFile, Stamp};

use super::protocol::Message;
use crate::errors::error_chain;

/// Time between checks of a file: an editor that saves an old buffer over it is not noticed
/// otherwise.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Delay after the first failure; doubles with each further one. Most failures pass at once (a
/// lock, an editor) or last long.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest delay between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Attempts in one turn when the file changes while it is being replaced: no editor writes so
/// often.
const ATTEMPTS: usize = 5;

/// Why a file could not be updated.
#[derive(Debug)]
pub(super) struct Error {
    path: PathBuf,
    fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Fault {
    /// The system refused an operation, with its error.
    Io(&'static str, io::Error),
    /// Another process holds the directory's lock.
    Locked,
    /// It keeps changing while it is being replaced.
    Changing,
    /// It is not a regular file.
    NotAFile,
    /// It is a symbolic link without a target.
    LeadsNowhere,
    /// It is a symbolic link that others than root can change: why, and the remedy.
    Distrusted(String, String),
    /// It has content, none of which is ours.
    Foreign,
    /// It has more foreign bytes than this.
    TooLarge(u64),
    /// Our marks in it are damaged: the fault, and its line, from 1.
    Damaged(&'static str, usize),
}

impl Fault {
    fn of(self, path: &Path) -> Error {
        Error { path: path.to_owned(), fault: self }
    }
}

impl Error {
    /// Whether the next attempt will probably succeed, so that this failure need not be reported.
    fn is_passing(&self) -> bool {
        matches!(self.fault, Fault::Locked | Fault::Changing)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Io(verb, error) => write!(f, "cannot {verb} {path}{}", hint(error)),
            Fault::Locked => write!(f, "another process keeps the lock of {path}"),
            Fault::Changing => write!(f, "{path} is changed by others without a pause"),
            Fault::NotAFile => write!(f, "{path} is not a regular file"),
            Fault::LeadsNowhere => write!(f, "{path} is a link that leads nowhere"),
            Fault::Distrusted(why, remedy) => {
                write!(f, "the link {path} is not followed: {why} ({remedy})")
            }
            Fault::Foreign => write!(
                f,
                "{path} has content and not one line of a blocked host: it is left to whom it belongs; move it away, or change blocked_file"
            ),
            Fault::TooLarge(limit) => write!(f, "{path} has more than {limit} bytes of others"),
            Fault::Damaged(what, line) => write!(
                f,
                "{path}:{line}: {what}; mend the marks of portsentry, or remove all lines from the first to the last of them"
            ),
        }
    }
}

/// What an administrator may do about an error of the system.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        // EPERM, not EACCES: root is refused too.
        _ if Errno::from_io_error(error) == Some(Errno::PERM) => " (chattr -i, if it is immutable)",
        io::ErrorKind::ReadOnlyFilesystem => {
            " (a service that is kept from its directory needs it in ReadWritePaths=)"
        }
        io::ErrorKind::NotFound => " (its directory must exist)",
        io::ErrorKind::ResourceBusy => " (it is a mount of its own: mount its directory instead)",
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

/// A file, or a group of files, that lists the blocks.
pub(super) trait MirrorFile: Send {
    /// Whether everything is written, as far as known.
    fn is_idle(&self) -> bool;
    /// Time until [`MirrorFile::write`] has work to do; `None`: not before the next change.
    fn next_due(&mut self, now: Instant) -> Option<Duration>;
    /// Writes what is due, checks for foreign changes, and returns messages to report. Cheap when
    /// nothing is due.
    fn write(&mut self, now: Instant) -> Vec<Message>;
    /// Removes all our lines at once, when the file is no longer used. [`MirrorFile::write`]
    /// retries failures, until [`MirrorFile::is_idle`].
    fn remove_all(&mut self, now: Instant) -> Vec<Message>;
}

/// One file that is replaced as a whole: when it is written, and how.
#[derive(Debug)]
pub(super) struct Mirror {
    path: PathBuf,
    /// The mode of a new file.
    mode: u32,
    /// Bytes that are read at most.
    limit: u64,
    /// How long changes are gathered.
    gather: Duration,
    /// The wanted content is not written yet.
    changed: bool,
    due: Option<Instant>,
    check_at: Option<Instant>,
    backoff: Backoff,
    /// The state of the file when it was last written or checked.
    stamp: Option<Stamp>,
    /// The failure that was reported.
    failure: Option<String>,
    /// Messages about links and lost attributes, each of which is reported once.
    reported: Vec<String>,
    /// What is to be reported.
    pub(super) messages: Vec<Message>,
}

impl Mirror {
    pub(super) fn new(path: PathBuf, mode: u32, limit: u64, gather: Duration) -> Self {
        Self {
            path,
            mode,
            limit,
            gather,
            changed: false,
            due: None,
            check_at: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            stamp: None,
            failure: None,
            reported: Vec::new(),
            messages: Vec::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path exists, as a file or otherwise.
    pub(super) fn exists(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok()
    }

    /// The wanted content has changed.
    pub(super) fn on_change(&mut self) {
        self.changed = true;
    }

    /// Write without gathering.
    pub(super) fn on_last_change(&mut self, now: Instant) {
        self.changed = true;
        self.due = Some(now);
    }

    /// Whether the wanted content is written.
    pub(super) fn is_idle(&self) -> bool {
        !self.changed
    }

    /// Time until there is work to do.
    pub(super) fn next_due(&mut self, now: Instant) -> Duration {
        if self.changed && self.due.is_none() {
            self.due = Some(now + self.gather);
        }
        let check_at = *self.check_at.get_or_insert(now + CHECK_EVERY);
        self.due.map_or(check_at, |due| due.min(check_at)).saturating_duration_since(now)
    }

    /// Whether to write now: the content has changed, or a check shows that the file is not the one
    /// that was written.
    pub(super) fn must_write(&mut self, now: Instant) -> bool {
        if !self.next_due(now).is_zero() {
            return false;
        }
        let must = if self.changed {
            // A failure is retried at its own time, not with every check.
            self.due.is_some_and(|due| due <= now)
        } else {
            // If it cannot be checked: the attempt to write it reports the reason.
            Stamp::at(&self.path).map_or(true, |stamp| stamp != self.stamp)
        };
        if !must {
            self.check_at = Some(now + CHECK_EVERY);
        }
        must
    }

    /// Notes the result of writing.
    pub(super) fn on_result(&mut self, now: Instant, result: Result<(), Error>) {
        self.check_at = Some(now + CHECK_EVERY);
        match result {
            Ok(()) => {
                self.changed = false;
                self.due = None;
                self.backoff.reset();
                if self.failure.take().is_some() {
                    self.warn(format!("{} is as it should be again", self.path.display()));
                }
            }
            Err(error) => {
                let wait = self.backoff.fail();
                self.due = Some(now + wait);
                self.changed = true;
                let text = error_chain(&error);
                // A passing failure is reported only when it lasts for some seconds.
                let early = error.is_passing() && wait < RETRY_FIRST * 8;
                if !early && self.failure.as_ref() != Some(&text) {
                    self.messages.push(Message::Error(format!(
                        "{text}; what is to be written there is kept, and tried again"
                    )));
                    self.failure = Some(text);
                }
            }
        }
    }

    pub(super) fn warn(&mut self, text: String) {
        self.messages.push(Message::Warning(text));
    }

    /// Reads the file without changing it; `None` if it does not exist.
    pub(super) fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let real = self.real()?;
        Ok(self.found(&real)?.map(|(_, bytes)| bytes))
    }

    /// Reads the file, asks for the new content (`None`: leave the file alone), and replaces the
    /// file; starts over if it was changed meanwhile. Returns what came with the new content.
    pub(super) fn update<R>(
        &mut self,
        mut decide: impl FnMut(Option<&[u8]>) -> Result<(Option<Vec<u8>>, R), Fault>,
    ) -> Result<R, Error> {
        let real = self.real()?;
        let failed = |verb, error| Fault::Io(verb, error).of(&real);
        let (Some(directory), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(Fault::NotAFile.of(&real));
        };
        let locked =
            Directory::lock(directory).map_err(|error| failed("lock the directory of", error))?;
        let locked = locked.ok_or_else(|| Fault::Locked.of(directory))?;
        for _ in 0..ATTEMPTS {
            let found = self.found(&real)?;
            let (bytes, result) = decide(found.as_ref().map(|(_, bytes)| bytes.as_slice()))
                .map_err(|fault| fault.of(&self.path))?;
            let found = found.map(|(found, _)| found);
            let Some(bytes) = bytes else {
                self.stamp = found.as_ref().map(OpenedFile::stamp);
                return Ok(result);
            };
            match locked.replace(name, &bytes, found.as_ref(), self.mode) {
                Ok(replaced) => {
                    self.stamp = Some(replaced.stamp);
                    for name in replaced.lost {
                        self.warn_once(format!(
                            "{} has lost its attribute {name}: the system let nobody copy it",
                            real.display()
                        ));
                    }
                    if !self.changed {
                        self.warn(format!(
                            "{} was changed by others and is as it should be again",
                            self.path.display()
                        ));
                    }
                    return Ok(result);
                }
                Err(Failed::Changed) => {}
                Err(Failed::Io(verb, error)) => return Err(failed(verb, error)),
            }
        }
        Err(Fault::Changing.of(&real))
    }

    /// The file, or the target of a link that only root can change.
    fn real(&mut self) -> Result<PathBuf, Error> {
        let look = |error| Fault::Io("look at", error).of(&self.path);
        match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_symlink() => {}
            Ok(_) => return Ok(self.path.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.path.clone()),
            Err(error) => return Err(look(error)),
        }
        let real = match std::fs::canonicalize(&self.path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Fault::LeadsNowhere.of(&self.path));
            }
            Err(error) => return Err(look(error)),
        };
        let facts = files::facts_at(&real).map_err(look)?;
        if let Some((why, remedy)) = distrust(&self.path, &facts).into_iter().next() {
            return Err(Fault::Distrusted(why, remedy).of(&self.path));
        }
        self.warn_once(format!(
            "{} is a link: {} is rewritten, and the link stays",
            self.path.display(),
            real.display()
        ));
        Ok(real)
    }

    fn found(&self, real: &Path) -> Result<Option<(OpenedFile, Vec<u8>)>, Error> {
        let failed = |error| Fault::Io("read", error).of(real);
        let Some(mut found) = OpenedFile::open(real).map_err(failed)? else { return Ok(None) };
        if !found.is_regular() {
            return Err(Fault::NotAFile.of(real));
        }
        // One byte more than allowed shows that it is too large.
        let bytes = found.read_up_to(self.limit + 1).map_err(failed)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > self.limit {
            return Err(Fault::TooLarge(self.limit).of(real));
        }
        Ok(Some((found, bytes)))
    }

    pub(super) fn warn_once(&mut self, text: String) {
        // The link's target and a few attributes. More messages mean that the link keeps changing.
        const REPORTED_ONCE_MAX: usize = 16;
        if self.reported.len() < REPORTED_ONCE_MAX && !self.reported.contains(&text) {
            self.reported.push(text.clone());
            self.warn(text);
        }
    }
}

//! The history file: a line for each block, each source that is slowed, and each scan that is only
//! reported, in PortSentry 1.2's format, appended, never truncated.
//!
//! A failing disk costs a bounded queue and one message an hour. A file that was rotated away is
//! reopened.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use log::Level;
use serde::{Deserialize, Serialize};

use super::JournalError;
use crate::config;
use crate::sys::files;
use crate::time::MonoTime;

/// Lines that wait for a failing disk: 100 KB, ten minutes at the default rate of
/// `block.unproven.per_minute`.
pub const QUEUE_MAX: usize = 1000;

/// Time between two messages about the same failing disk.
const REPORT_EVERY: Duration = Duration::from_secs(3600);

/// Time between two attempts while the disk fails.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// The group may read it (adm, with a setgid directory or chgrp(1)), others may not: it holds
/// personal addresses.
const MODE: u32 = 0o640;

/// The open file and the lines that wait for it.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    /// `None`: it could not be opened yet.
    file: Option<File>,
    /// Lines with their line ends.
    queue: VecDeque<String>,
    /// Bytes of the first queued line that are in the file already: a disk may fill in the middle
    /// of a line.
    written: usize,
    dropped: u64,
    retry_at: Option<MonoTime>,
    reported_at: Option<MonoTime>,
}

/// A message about the file's health: an error when it cannot be written, a warning when it can be
/// written again.
pub type DiskState = (Level, String);

impl History {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// open(2) failed: the directory is missing or not writable, or the path is not a file.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        match open(path) {
            Ok(file) => Ok(Self::new(path.to_owned(), Some(file))),
            Err(error) => Err(JournalError::History(path.to_owned(), error)),
        }
    }

    /// A file that could not be opened because of this error, and what to report about it. It is
    /// tried again.
    pub fn failing(path: PathBuf, error: &io::Error, now: MonoTime) -> (Self, DiskState) {
        let mut history = Self::new(path, None);
        history.retry_at = Some(now.after(RETRY_EVERY));
        history.reported_at = Some(now);
        let state = history.failure(error);
        (history, state)
    }

    fn new(path: PathBuf, file: Option<File>) -> Self {
        Self {
            path,
            file,
            queue: VecDeque::new(),
            written: 0,
            dropped: 0,
            retry_at: None,
            reported_at: None,
        }
    }

    fn failure(&self, error: &io::Error) -> DiskState {
        let path = self.path.display();
        let text = format!(
            "history file {path} cannot be written: {error}; up to {QUEUE_MAX} lines are kept in memory until it can"
        );
        (Level::Error, text)
    }

    /// Whether lines wait for the disk.
    pub fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Time until the next useful [`History::flush`]; `None` when no line waits.
    pub fn next_due(&self, now: MonoTime) -> Option<Duration> {
        self.retry_at.map(|at| at.since(now))
    }

    /// Appends a line, given without its line end.
    pub fn append(&mut self, line: &str, now: MonoTime) -> Option<DiskState> {
        // The oldest line is dropped, unless part of it is in the file.
        if self.queue.len() >= QUEUE_MAX
            && self.queue.remove(usize::from(self.written > 0)).is_some()
        {
            self.dropped += 1;
        }
        self.queue.push_back(format!("{line}\n"));
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.flush(now)
    }

    /// Writes the waiting lines.
    pub fn flush(&mut self, now: MonoTime) -> Option<DiskState> {
        if self.queue.is_empty() && !self.is_failing() {
            return None;
        }
        match self.write() {
            Ok(()) => {
                let failed = self.retry_at.take().is_some();
                let reported_at = self.reported_at.take().is_some();
                let dropped = std::mem::take(&mut self.dropped);
                (failed && reported_at).then(|| {
                    let lost = if dropped > 0 {
                        format!("; {dropped} lines are lost")
                    } else {
                        String::new()
                    };
                    let path = self.path.display();
                    (Level::Warn, format!("history file {path} is written again{lost}"))
                })
            }
            Err(error) => {
                self.retry_at = Some(now.after(RETRY_EVERY));
                if self.reported_at.is_some_and(|at| now.since(at) < REPORT_EVERY) {
                    return None;
                }
                self.reported_at = Some(now);
                Some(self.failure(&error))
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.reopen_if_moved()?;
        let Self { file: Some(file), queue, written, .. } = self else { return Ok(()) };
        while let Some(line) = queue.front() {
            let rest = line.as_bytes().get(*written..).unwrap_or_default();
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) if count < rest.len() => *written += count,
                Ok(_) => {
                    queue.pop_front();
                    *written = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reopens the file if the path leads to another inode or none: logrotate(8) renames it.
    fn reopen_if_moved(&mut self) -> io::Result<()> {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let ours = self.file.as_ref().map(File::metadata).transpose()?.map(identity);
        if ours.is_none() || std::fs::metadata(&self.path).ok().map(identity) != ours {
            self.file = Some(open(&self.path)?);
            // The rest of a line begun in the old file would not be a line in the new one.
            self.written = 0;
        }
        Ok(())
    }
}

/// Opens the file, or creates it. Where other users can write the directory, they may have made a
/// link there to have another file written: it is not followed.
fn open(path: &Path) -> io::Result<File> {
    let refuse = |what: &str, (why, remedy): config::Fault| {
        io::Error::other(format!("it is {what}, which is not followed: {why} ({remedy})"))
    };
    let distrusted = || config::distrust_place(path).into_iter().next();
    match files::append(path, MODE, false) {
        Err(_) if files::link_owner(path).is_some() => match distrusted() {
            Some(fault) => Err(refuse("a symbolic link", fault)),
            None => files::append(path, MODE, true),
        },
        Ok(file) if files::facts(&file)?.names > 1 => match distrusted() {
            Some(fault) => Err(refuse("a file with a second name", fault)),
            None => Ok(file),
        },
        result => result,
    }
}

/// A parsed line of the history file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Time of the kernel's acknowledgement.
    pub at: Timestamp,
    /// A name, an address, or the blocked prefix in CIDR form.
    pub host: String,
    /// The address of the scanner; of a network that was blocked by hand the first one.
    pub address: IpAddr,
    /// Port number.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`, `IP`; `MANUAL` for a manual block.
    pub protocol: String,
    /// What happened to it.
    pub state: State,
}

/// What happened to a host: the last word of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was blocked.
    #[default]
    Blocked,
    /// It was slowed, not blocked.
    Slowed,
    /// Its scan was reported, and nothing else done.
    Reported,
}

impl State {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Blocked => "Blocked",
            Self::Slowed => "Slowed",
            Self::Reported => "Reported",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Blocked, Self::Slowed, Self::Reported].into_iter().find(|state| state.word() == word)
    }
}

impl Entry {
    /// Parses a line; `None` if it is not a history line.
    pub fn parse(line: &str) -> Option<Self> {
        let (epoch, rest) = line.split_once(" - ")?;
        let at = Timestamp::from_second(epoch.trim().parse().ok()?).ok()?;
        let (_, rest) = rest.split_once(" Host: ")?;
        let (hosts, rest) = rest.split_once(" Port: ")?;
        let (host, address) = hosts.rsplit_once('/')?;
        let mut fields = rest.split_ascii_whitespace();
        let (port, protocol, state) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            at,
            host: host.to_owned(),
            address: address.parse().ok()?,
            port: port.parse().ok()?,
            protocol: protocol.to_owned(),
            state: State::of_word(state)?,
        })
    }

    /// The blocked network: the prefix if the line has one, else the address.
    pub fn network(&self) -> IpNet {
        self.host.parse().unwrap_or_else(|_| IpNet::from(self.address))
    }
}

/// A selection of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Oldest time.
    pub since: Option<Timestamp>,
    /// Lines about this address or network, or a network that contains it.
    pub source: Option<IpNet>,
    /// Maximum number of lines; the newest are given.
    pub limit: usize,
}

/// Bytes read from the end of the file at most: three months at the highest rate, and a second of
/// work.
const READ_MAX: u64 = 64 << 20;

/// Longest line that is parsed; longer ones are not history lines.
const LINE_MAX: usize = 4096;

/// Reads lines from the end of the file; returns them oldest first, and whether older ones were
/// left out. A missing file has no lines. `is_cancelled` is called every 64 KiB (about 700 lines);
/// if it returns true, reading stops and the incomplete result must not be used.
///
/// # Errors
/// open(2) or read(2) failed.
pub fn read(
    path: &Path,
    query: &Query,
    is_cancelled: &dyn Fn() -> bool,
) -> io::Result<(Vec<Entry>, bool)> {
    const CHUNK: u64 = 64 << 10;
    let mut file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
        Err(error) => return Err(error),
    };
    let mut start = file.metadata()?.len();
    let floor = start.saturating_sub(READ_MAX);
    let (mut entries, mut is_limited) = (Vec::new(), false);
    // The start of the chunk read before: the end of a line that begins further ahead in the file.
    let mut tail: Vec<u8> = Vec::new();
    'file: while start > floor && !is_cancelled() {
        let size = CHUNK.min(start - floor);
        start -= size;
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = Vec::new();
        (&mut file).take(size).read_to_end(&mut chunk)?;
        chunk.extend_from_slice(&tail);
        // Only the text after the first line end is whole, unless this is the start of the file.
        let whole = if start == 0 {
            0
        } else {
            chunk.iter().position(|&byte| byte == b'\n').map_or(chunk.len(), |at| at + 1)
        };
        for line in chunk.get(whole..).unwrap_or_default().rsplit(|&byte| byte == b'\n') {
            let Some(entry) = std::str::from_utf8(line).ok().and_then(Entry::parse) else {
                continue;
            };
            // A day of tolerance: after a clock was set back, lines are not in the order of their
            // times.
            if query.since.is_some_and(|since| {
                entry.at.as_second() < since.as_second().saturating_sub(86_400)
            }) {
                start = 0;
                break 'file;
            }
            if !query.wants(&entry) {
                continue;
            }
            if entries.len() >= query.limit {
                is_limited = true;
                break 'file;
            }
            entries.push(entry);
        }
        chunk.truncate(whole.min(LINE_MAX));
        tail = chunk;
    }
    entries.reverse();
    Ok((entries, is_limited || start > 0))
}

impl Query {
    fn wants(&self, entry: &Entry) -> bool {
        let network = entry.network();
        self.since.is_none_or(|since| entry.at >= since)
            && self
                .source
                .is_none_or(|source| source.contains(&network) || network.contains(&source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: MonoTime = MonoTime::from_millis(1_000_000);

    fn line(second: i64, host: &str) -> String {
        format!("{second} - 11/20/2026 15:26:40 Host: {host}/{host} Port: 1 TCP Blocked")
    }

    fn everything() -> Query {
        Query { since: None, source: None, limit: usize::MAX }
    }

    // D11
    #[test]
    fn lines_are_appended_to_what_is_there_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        std::fs::write(
            &path,
            "1 - 01/01/1970 00:00:01 Host: old.example/192.0.2.1 Port: 7 UDP Blocked\nnot a line\n",
        )
        .unwrap();
        let mut history = History::open(&path).unwrap();
        assert_eq!(history.append(&line(2, "192.0.2.2"), NOW), None);
        let (entries, more) = read(&path, &everything(), &|| false).unwrap();
        assert!(!more);
        assert_eq!(
            entries.iter().map(|entry| entry.host.as_str()).collect::<Vec<_>>(),
            ["old.example", "192.0.2.2"]
        );
        assert_eq!((entries[0].port, entries[0].protocol.as_str()), (7, "UDP"));
        assert_eq!(
            std::fs::metadata(&path).unwrap().len() as usize,
            72 + 11 + line(2, "192.0.2.2").len() + 1
        );
    }

    // D11
    #[test]
    fn a_new_file_is_not_world_readable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        History::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o027, 0);
    }

    #[test]
    fn a_missing_directory_is_named_in_the_error() {
        let error = History::open(Path::new("/no/such/place/history")).unwrap_err().to_string();
        assert!(error.contains("the directory /no/such/place does not exist"), "{error}");
    }

    #[test]
    fn a_rotated_file_is_reopened() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("history"), directory.path().join("history.1"));
        let mut history = History::open(&path).unwrap();
        history.append("one", NOW);
        std::fs::rename(&path, &old).unwrap();
        history.append("two", NOW);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_file(&path).unwrap();
        history.append("three", NOW);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_full_disk_is_reported_once_and_its_lines_are_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut history = History::open(&path).unwrap();
        assert!(
            matches!(history.append("line 0", NOW), Some((Level::Error, text)) if text.contains("No space left"))
        );
        let mut told = 0;
        for n in 1..QUEUE_MAX as u64 + 50 {
            told += usize::from(
                history.append(&format!("line {n}"), NOW.after(Duration::from_secs(n))).is_some(),
            );
        }
        assert_eq!(told, 0);
        assert!(history.is_failing());
        std::fs::remove_file(&path).unwrap();
        let well = NOW.after(Duration::from_secs(2000));
        assert!(
            matches!(history.flush(well), Some((Level::Warn, text)) if text.contains("50 lines are lost"))
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), QUEUE_MAX);
        assert!(text.starts_with("line 50\n") && text.ends_with("line 1049\n"));
        assert!(!history.is_failing());
    }

    #[test]
    fn the_newest_lines_are_found_by_time_and_source_across_chunks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let mut text = String::new();
        for n in 0..20_000i64 {
            text += &line(
                1_000_000_000 + n * 60,
                if n % 1000 == 0 { "2001:db8::/64" } else { "192.0.2.7" },
            )
            .replace("/64/2001:db8::/64", "/64/2001:db8::");
            text.push('\n');
        }
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read(&path, &everything(), &|| false).unwrap().0.len(), 20_000);
        let since = Timestamp::from_second(1_000_000_000 + 19_000 * 60).ok();
        assert_eq!(read(&path, &Query { since, ..everything() }, &|| false).unwrap().0.len(), 1000);
        let source = Some("2001:db8::7/128".parse().unwrap());
        assert_eq!(read(&path, &Query { source, ..everything() }, &|| false).unwrap().0.len(), 20);
        let (newest, more) = read(&path, &Query { limit: 3, ..everything() }, &|| false).unwrap();
        assert!(more);
        assert_eq!(newest.last().unwrap().at.as_second(), 1_000_000_000 + 19_999 * 60);
        assert_eq!(newest.len(), 3);
    }

    #[test]
    fn a_missing_file_has_no_lines() {
        assert_eq!(
            read(Path::new("/no/such/place/history"), &everything(), &|| false).unwrap(),
            (Vec::new(), false)
        );
    }

    proptest! {
        // P8
        #[test]
        fn no_bytes_in_the_file_make_the_reader_fail(bytes in proptest::collection::vec(any::<u8>(), 0..2000), good in 0usize..5) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("history");
            let mut content = bytes;
            content.push(b'\n');
            for _ in 0..good {
                content.extend_from_slice(line(5, "192.0.2.1").as_bytes());
                content.push(b'\n');
            }
            std::fs::write(&path, &content).unwrap();
            prop_assert_eq!(read(&path, &everything(), &|| false).unwrap().0.len(), good);
        }
    }
}

//! Text files with the current blocks, one for each of the six modes (`portsentry.blocked.atcp`),
//! in PortSentry 1.2's line format.
//!
//! 1.2 truncated them at start and then only appended; here an entry is removed when its block
//! ends, so that recipes that read the files see the current state. The files of modes in use
//! exist, even if empty. The file of a mode no longer in use keeps its entries until their blocks
//! end; it is not created.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::mirror::{Error, Fault, Mirror, MirrorFile};
use super::protocol::Message;
use crate::config::ClassicMode;
use crate::journal::history;

/// Lines of one file; the newest are kept. A megabyte, which monitoring recipes read without
/// trouble.
pub(super) const LINES_MAX: usize = 10_000;

/// How long changes are gathered: monitoring reads these files every few seconds at most.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// Bytes of a file that are read at most: the maximum number of lines, at 400 bytes.
const SIZE_MAX: u64 = 4 << 20;

/// Same as the history file's: the group may read it, others may not. It is `control.group`, so that
/// a program for monitoring needs not be root.
const MODE: u32 = 0o640;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The mode whose file has the line.
    pub mode: ClassicMode,
    /// The blocked address, or the network in CIDR form; always formatted the same way.
    pub subject: String,
    /// The line as in the history file, without its line end.
    pub line: String,
}

/// The six files.
#[derive(Debug)]
pub(super) struct BlockedFiles {
    files: Vec<One>,
}

impl BlockedFiles {
    /// The files `<base>.tcp` and so on. Nothing is read or written yet.
    /// `group`, an id, may read them.
    pub(super) fn new(base: PathBuf, group: Option<u32>) -> Self {
        let path = |mode: ClassicMode| {
            let mut path = base.clone().into_os_string();
            path.push(format!(".{}", mode.word()));
            PathBuf::from(path)
        };
        Self {
            files: ClassicMode::ALL
                .into_iter()
                .map(|mode| One::new(mode, path(mode), group))
                .collect(),
        }
    }

    /// Sets the modes in use: their files exist after the next [`BlockedFiles::write`], and keep
    /// lines of earlier runs until [`BlockedFiles::retain`].
    pub(super) fn use_modes(&mut self, modes: &[ClassicMode]) {
        for file in &mut self.files {
            file.used = modes.contains(&file.mode);
            file.mirror.on_change();
        }
    }

    /// Adds the line of a new block, which replaces an earlier line of the same subject.
    pub(super) fn add(&mut self, entry: Entry) {
        let Some(file) = self.files.iter_mut().find(|file| file.mode == entry.mode) else { return };
        if let Some(key) = base(&entry.subject) {
            // On an error it is read again before the next write.
            let _ = file.read_first();
            file.insert(key, Some(entry.subject), entry.line);
            file.mirror.on_change();
        }
    }

    /// Adds the line of a block from the list of all. The list does not know which address of a
    /// prefix scanned, so a line that the file has of a prefix stays.
    pub(super) fn add_listed(&mut self, entry: Entry) {
        let is_there = self.files.iter_mut().any(|file| {
            // On an error it is read again before the next write.
            let _ = file.read_first();
            let line = base(&entry.subject).and_then(|key| file.lines.get(&key));
            file.mode == entry.mode
                && line.is_some_and(|line| line.subject.as_ref() == Some(&entry.subject))
        });
        if !is_there || !entry.subject.contains('/') {
            self.add(entry);
        }
    }

    /// Removes the line of a block that ended.
    pub(super) fn remove(&mut self, subject: &str) {
        self.files.iter_mut().for_each(|file| file.remove(subject));
    }

    /// Removes the lines of all other subjects. Lines of earlier runs are compared by address.
    pub(super) fn retain(&mut self, subjects: &HashSet<String>) {
        let addresses: HashSet<IpAddr> =
            subjects.iter().filter_map(|subject| base(subject)).collect();
        self.files.iter_mut().for_each(|file| file.retain(subjects, &addresses));
    }
}

impl MirrorFile for BlockedFiles {
    fn is_idle(&self) -> bool {
        self.files.iter().all(|file| file.mirror.is_idle())
    }

    fn next_due(&mut self, now: Instant) -> Option<Duration> {
        self.files.iter_mut().map(|file| file.mirror.next_due(now)).min()
    }

    fn write(&mut self, now: Instant) -> Vec<Message> {
        self.files.iter_mut().flat_map(|file| file.write(now)).collect()
    }

    fn remove_all(&mut self, now: Instant) -> Vec<Message> {
        self.retain(&HashSet::new());
        for file in &mut self.files {
            file.used = false;
            file.mirror.on_last_change(now);
        }
        self.write(now)
    }
}

/// The first address of a subject.
fn base(subject: &str) -> Option<IpAddr> {
    subject.parse().ok().or_else(|| Some(subject.parse::<IpNet>().ok()?.network()))
}

/// The lines of a file that are not blank.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

/// A line as text, and what it says.
fn parsed(line: &[u8]) -> Option<(&str, history::Entry)> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let entry =
        history::Entry::parse(line).filter(|entry| entry.state == history::State::Blocked)?;
    Some((line, entry))
}

/// Whether no line of the content is a blocked host: then it is another program's file under our
/// name.
fn is_foreign(bytes: &[u8]) -> bool {
    lines(bytes).next().is_some() && lines(bytes).all(|line| parsed(line).is_none())
}

#[derive(Debug)]
struct Line {
    /// Its place in the order of blocking.
    number: u64,
    /// `None`: read from a file that had a reverse name instead.
    subject: Option<String>,
    text: String,
}

/// One file.
#[derive(Debug)]
struct One {
    mode: ClassicMode,
    mirror: Mirror,
    used: bool,
    group: Option<u32>,
    /// By the first address of their subjects.
    lines: HashMap<IpAddr, Line>,
    next: u64,
    /// The content at the start was read, or there was none.
    read: bool,
    too_many_told: bool,
}

impl One {
    fn new(mode: ClassicMode, path: PathBuf, group: Option<u32>) -> Self {
        Self {
            mode,
            mirror: Mirror::new(path, MODE, SIZE_MAX, GATHER_TIME),
            used: false,
            group,
            lines: HashMap::new(),
            next: 0,
            read: false,
            too_many_told: false,
        }
    }

    fn insert(&mut self, key: IpAddr, subject: Option<String>, text: String) {
        // Remove control characters, so that it stays one line.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        self.lines.insert(key, Line { number: self.next, subject, text });
        self.next += 1;
        if self.lines.len() > LINES_MAX {
            let oldest = self.lines.iter().min_by_key(|(_, line)| line.number);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.lines.remove(&oldest);
            }
            if !self.too_many_told {
                self.too_many_told = true;
                self.mirror.warn(format!(
                    "{} has the newest {LINES_MAX} blocks only; portsentryctl list has all",
                    self.mirror.path().display()
                ));
            }
        }
    }

    fn remove(&mut self, subject: &str) {
        let _ = self.read_first();
        let Some(key) = base(subject) else { return };
        // A network and its first address have the same key but are different subjects.
        let is_same = |line: &Line| line.subject.as_deref().is_none_or(|known| known == subject);
        if self.lines.get(&key).is_some_and(is_same) {
            self.lines.remove(&key);
            self.mirror.on_change();
        }
    }

    fn retain(&mut self, subjects: &HashSet<String>, addresses: &HashSet<IpAddr>) {
        let _ = self.read_first();
        let before = self.lines.len();
        self.lines.retain(|key, line| match &line.subject {
            Some(subject) => subjects.contains(subject),
            None => addresses.contains(key),
        });
        if self.lines.len() != before {
            self.mirror.on_change();
        }
    }

    /// Reads the lines of an earlier run.
    fn read_first(&mut self) -> Result<(), Error> {
        if self.read {
            return Ok(());
        }
        let found = self.mirror.read()?;
        self.read = true;
        let Some(bytes) = found else { return Ok(()) };
        if is_foreign(&bytes) {
            return Ok(());
        }
        let mut unreadable = 0u64;
        for line in lines(&bytes) {
            match parsed(line) {
                Some((line, entry)) => {
                    let subject = base(&entry.host).map(|_| entry.host.clone());
                    let key = subject.as_deref().and_then(base).unwrap_or(entry.address);
                    // Lines that were added since are newer.
                    if !self.lines.contains_key(&key) {
                        self.insert(key, subject, line.to_owned());
                    }
                }
                None => unreadable += 1,
            }
        }
        // Write the file again, if only to fix the order of its lines.
        self.mirror.on_change();
        if unreadable > 0 {
            self.mirror.warn(format!(
                "{unreadable} {} of {} cannot be read and are dropped",
                if unreadable == 1 { "line" } else { "lines" },
                self.mirror.path().display()
            ));
        }
        Ok(())
    }

    fn write(&mut self, now: Instant) -> Vec<Message> {
        if !self.mirror.must_write(now) {
            return Vec::new();
        }
        let result = self.read_first().and_then(|()| self.apply());
        if result.is_ok() {
            self.share();
        }
        self.mirror.on_result(now, result);
        std::mem::take(&mut self.mirror.messages)
    }

    /// Gives the file to the group. A replaced file keeps its group, so that this changes a new one
    /// only.
    fn share(&mut self) {
        let path = self.mirror.path();
        let is_others = |gid| std::fs::metadata(path).is_ok_and(|found| found.gid() != gid);
        let Some(gid) = self.group.filter(|gid| is_others(*gid)) else { return };
        if let Err(error) = std::os::unix::fs::chown(path, None, Some(gid)) {
            let text = format!("{} cannot be given to control.group: {error}", path.display());
            self.mirror.warn_once(text);
        }
    }

    fn apply(&mut self) -> Result<(), Error> {
        if !self.used && self.lines.is_empty() && !self.mirror.exists() {
            return Ok(());
        }
        let mut lines: Vec<_> = self.lines.values().collect();
        lines.sort_unstable_by_key(|line| line.number);
        let text: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        let needed = self.used || !text.is_empty();
        self.mirror.update(|bytes| {
            if bytes.is_some_and(is_foreign) {
                return if needed { Err(Fault::Foreign) } else { Ok((None, ())) };
            }
            let right = bytes.map_or(!needed, |bytes| bytes == text.as_bytes());
            Ok(((!right).then(|| text.clone().into_bytes()), ()))
        })
    }
}

#[cfg(test)]
mod tests;

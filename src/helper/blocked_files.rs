//! The text files of what is blocked now, one for each of the six modes (`portsentry.blocked.atcp`), a line each in PortSentry 1.2's format.
//!
//! 1.2 truncated them at start and only ever appended; here an entry leaves when its block ends, so that recipes which read them see the truth.
//! The files of modes that are in use exist, empty if nothing is blocked. That of a mode which is not in use any more keeps what is still blocked
//! and is empty then; it is not made where there is none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::mirror::{Error, Mirror, Schedule, Turn, Wanted};
pub use super::told::Told;
use crate::journal::history;

/// Lines of one file: the newest are kept. A megabyte, which a monitoring recipe still reads in no time.
pub const LINES_MAX: usize = 10_000;

/// Changes are gathered for this long: nobody reads these files more often than every some seconds.
const GATHER: Duration = Duration::from_secs(1);

/// Bytes of a file that are read at most: as many lines as there may be, of 400 bytes.
const SIZE_MAX: u64 = 4 << 20;

/// As the history file has: the group may read it, nobody else.
const MODE: u32 = 0o640;

/// A mode of PortSentry 1.2, each with its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// `-tcp`: connect mode.
    Tcp,
    /// `-stcp`: stealth mode.
    Stcp,
    /// `-atcp`: advanced mode.
    Atcp,
    /// `-udp`: connect mode.
    Udp,
    /// `-sudp`: stealth mode.
    Sudp,
    /// `-audp`: advanced mode.
    Audp,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Tcp, Self::Stcp, Self::Atcp, Self::Udp, Self::Sudp, Self::Audp];

    /// The word, which is the end of the file's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Stcp => "stcp",
            Self::Atcp => "atcp",
            Self::Udp => "udp",
            Self::Sudp => "sudp",
            Self::Audp => "audp",
        }
    }

    /// The mode of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

/// Something that is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which file it belongs to.
    pub mode: Mode,
    /// What is blocked: an address, or a network in CIDR form; always in the same words.
    pub subject: String,
    /// Its line, as the history file has it, without its end.
    pub line: String,
}

/// All six files.
#[derive(Debug)]
pub struct BlockedFiles {
    files: Vec<One>,
}

impl BlockedFiles {
    /// The files `<base>.tcp` and so on. Nothing is read or written yet.
    pub fn new(base: PathBuf) -> Self {
        let path = |mode: Mode| {
            let mut path = base.clone().into_os_string();
            path.push(".");
            path.push(mode.word());
            PathBuf::from(path)
        };
        Self { files: Mode::ALL.into_iter().map(|mode| One::new(mode, path(mode))).collect() }
    }

    /// The modes that are in use now: their files exist from the next [`BlockedFiles::write`] on, and hold what earlier runs left until
    /// [`BlockedFiles::retain`].
    pub fn use_modes(&mut self, modes: &[Mode]) {
        for file in &mut self.files {
            file.used = modes.contains(&file.mode);
            file.schedule.on_change();
        }
    }

    /// A block has begun. The line of an earlier block of the same subject goes.
    pub fn add(&mut self, entry: Entry) {
        let Some(file) = self.files.iter_mut().find(|file| file.mode == entry.mode) else { return };
        if let Some(key) = base(&entry.subject) {
            // What cannot be read now is read before anything is written.
            let _ = file.read_first();
            file.insert(key, Some(entry.subject), entry.line);
            file.schedule.on_change();
        }
    }

    /// A block is over.
    pub fn remove(&mut self, subject: &str) {
        self.files.iter_mut().for_each(|file| file.remove(subject));
    }

    /// Only these are blocked still. A line of an earlier run is judged by its address.
    pub fn retain(&mut self, subjects: &HashSet<String>) {
        let addresses: HashSet<IpAddr> = subjects.iter().filter_map(|subject| base(subject)).collect();
        self.files.iter_mut().for_each(|file| file.retain(subjects, &addresses));
    }

    /// Empties all files, at once: the feature was switched off. If that fails it is tried again by [`BlockedFiles::write`], until
    /// [`BlockedFiles::is_idle`].
    pub fn take_out(&mut self, now: Instant) -> Vec<Told> {
        self.retain(&HashSet::new());
        for file in &mut self.files {
            file.used = false;
            file.schedule.on_last_change(now);
        }
        self.write(now)
    }

    /// Whether all files are as they should be, as far as known.
    pub fn is_idle(&self) -> bool {
        self.files.iter().all(|file| file.schedule.is_idle())
    }

    /// How long until [`BlockedFiles::write`] has something to do.
    pub fn next_due(&mut self, now: Instant) -> Option<Duration> {
        self.files.iter_mut().map(|file| file.schedule.next_due(now)).min()
    }

    /// Writes what is due, looks whether others changed a file, and gives what is to be told. Cheap when nothing is due.
    pub fn write(&mut self, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        self.files.iter_mut().for_each(|file| file.write(now, &mut told));
        told
    }
}

/// The first address of what is blocked.
fn base(subject: &str) -> Option<IpAddr> {
    subject.parse().ok().or_else(|| Some(subject.parse::<IpNet>().ok()?.network()))
}

/// Whether a file has content that nobody would have written as a list of blocked hosts: somebody else's, under a name that was given to ours.
fn is_foreign(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).peekable();
    lines.peek().is_some() && !lines.any(|line| std::str::from_utf8(line).is_ok_and(|line| history::Entry::parse(line.trim_end()).is_some()))
}

#[derive(Debug)]
struct Line {
    key: IpAddr,
    /// `None`: read from a file that had a reverse name in its place.
    subject: Option<String>,
    text: String,
}

/// One file.
#[derive(Debug)]
struct One {
    mode: Mode,
    mirror: Mirror,
    schedule: Schedule,
    used: bool,
    /// By number, in the order of blocking.
    lines: BTreeMap<u64, Line>,
    numbers: HashMap<IpAddr, u64>,
    next: u64,
    /// What was there at start was read, or there was nothing.
    read: bool,
    /// To be told with the next writing.
    tell: Vec<Told>,
    too_many_told: bool,
}

impl One {
    fn new(mode: Mode, path: PathBuf) -> Self {
        Self {
            mode,
            mirror: Mirror::new(path, MODE, SIZE_MAX),
            schedule: Schedule::new(GATHER),
            used: false,
            lines: BTreeMap::new(),
            numbers: HashMap::new(),
            next: 0,
            read: false,
            tell: Vec::new(),
            too_many_told: false,
        }
    }

    fn insert(&mut self, key: IpAddr, subject: Option<String>, text: String) {
        // Whatever the line was made of, it is one line.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        if let Some(old) = self.numbers.insert(key, self.next) {
            self.lines.remove(&old);
        }
        self.lines.insert(self.next, Line { key, subject, text });
        self.next += 1;
        if self.lines.len() > LINES_MAX {
            if let Some((_, oldest)) = self.lines.pop_first() {
                self.numbers.remove(&oldest.key);
            }
            if !self.too_many_told {
                self.too_many_told = true;
                let path = self.mirror.path().display();
                self.tell.push(Told::Warning(format!("{path} has the newest {LINES_MAX} blocks only; portsentryctl list has all")));
            }
        }
    }

    fn remove(&mut self, subject: &str) {
        let _ = self.read_first();
        let Some(key) = base(subject) else { return };
        let Some(number) = self.numbers.get(&key) else { return };
        // A network and its first address have the same key and are not the same.
        if self.lines.get(number).is_some_and(|line| line.subject.as_deref().is_none_or(|known| known == subject)) {
            self.lines.remove(number);
            self.numbers.remove(&key);
            self.schedule.on_change();
        }
    }

    fn retain(&mut self, subjects: &HashSet<String>, addresses: &HashSet<IpAddr>) {
        let _ = self.read_first();
        let numbers = &mut self.numbers;
        let before = self.lines.len();
        self.lines.retain(|_, line| {
            let stays = line.subject.as_ref().map_or_else(|| addresses.contains(&line.key), |subject| subjects.contains(subject));
            if !stays {
                numbers.remove(&line.key);
            }
            stays
        });
        if self.lines.len() != before {
            self.schedule.on_change();
        }
    }

    /// Takes over what an earlier run wrote.
    fn read_first(&mut self) -> Result<(), Error> {
        if self.read {
            return Ok(());
        }
        let found = self.mirror.read(&mut self.tell)?;
        self.read = true;
        let Some(bytes) = found else { return Ok(()) };
        if is_foreign(&bytes) {
            return Ok(());
        }
        let mut unreadable = 0u64;
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            match std::str::from_utf8(line).ok().map(str::trim_end).and_then(|line| Some((history::Entry::parse(line)?, line))) {
                Some((entry, line)) => {
                    let subject = base(&entry.host).map(|_| entry.host.clone());
                    let key = subject.as_deref().and_then(base).unwrap_or(entry.address);
                    // What was added since is newer.
                    if !self.numbers.contains_key(&key) {
                        self.insert(key, subject, line.to_owned());
                    }
                }
                None => unreadable += 1,
            }
        }
        // The file is to be made right, if only in the order of its lines.
        self.schedule.on_change();
        if unreadable > 0 {
            let (path, lines) = (self.mirror.path().display(), if unreadable == 1 { "line" } else { "lines" });
            self.tell.push(Told::Warning(format!("{unreadable} {lines} of {path} cannot be read and are dropped")));
        }
        Ok(())
    }

    fn write(&mut self, now: Instant, told: &mut Vec<Told>) {
        let turn = self.schedule.turn(now);
        if turn == Turn::Nothing {
            return;
        }
        let path = self.mirror.path().to_owned();
        if turn == Turn::Look && !self.mirror.is_changed() {
            self.schedule.on_result(now, Ok(()), &path, told);
            return;
        }
        let result = self.read_first().and_then(|()| self.apply(turn, told));
        self.schedule.on_result(now, result, &path, told);
        told.append(&mut self.tell);
    }

    fn apply(&mut self, turn: Turn, told: &mut Vec<Told>) -> Result<(), Error> {
        if !self.used && self.lines.is_empty() && !self.mirror.exists() {
            return Ok(());
        }
        let mut text = String::new();
        for line in self.lines.values() {
            text.push_str(&line.text);
            text.push('\n');
        }
        let needed = self.used || !text.is_empty();
        let path = self.mirror.path().to_owned();
        let ((), replaced) = self.mirror.update(told, |bytes| {
            if bytes.is_some_and(is_foreign) {
                return if needed { Err(Error::Foreign(path.clone())) } else { Ok(Wanted { bytes: None, result: () }) };
            }
            let right = bytes.map_or(!needed, |bytes| bytes == text.as_bytes());
            Ok(Wanted { bytes: (!right).then(|| text.clone().into_bytes()), result: () })
        })?;
        if replaced && turn == Turn::Look {
            self.mirror.tell_mended(told);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

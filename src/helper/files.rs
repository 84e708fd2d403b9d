//! The thread that keeps text files true to what is blocked. It may wait for a disk; nobody waits for it.
//!
//! Owns the order of things between [`hosts_deny`](super::hosts_deny) and [`blocked_files`](super::blocked_files) and what the daemon says. What does
//! not fit its queue is not lost: it asks for the list of all blocks.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Tell;
use super::blocked_files::{BlockedFiles, Entry};
use super::hosts_deny::HostsDeny;
use super::mirror::Kept;
use super::protocol::{Blocked, List, Settings, Word};
use crate::config::ClassicMode;

/// Orders that wait while a disk is slow: a whole list of blocks in its pieces, and some thousand changes.
const QUEUE: usize = 4096;

/// Files that are not used any more but could not be emptied yet: an administrator does not change paths more often while a disk is broken.
const RETIRED_MAX: usize = 4;

/// The last changes are written at the end without being gathered: as if it were so much later.
const GATHERED: Duration = Duration::from_secs(5);

/// What the last writing may take.
const LAST_WRITING: Duration = Duration::from_secs(2);

/// What the daemon says of files.
pub enum Change {
    /// A block is in force.
    Blocked(Blocked),
    /// A block is over.
    Unblocked(String),
    /// A piece of the list of all blocks.
    List(List),
    /// Look at the settings.
    Settings,
}

#[derive(Default)]
struct Shared {
    settings: Mutex<Option<Settings>>,
    /// A change found the queue full.
    lost: AtomicBool,
}

/// The way to the thread.
pub struct Files {
    shared: Arc<Shared>,
    changes: SyncSender<Change>,
    ended: Receiver<()>,
}

impl Files {
    /// Starts the thread; no file is touched before there are settings that name one.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(tell: Tell) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (changes, queue) = sync_channel(QUEUE);
        let (end, ended) = sync_channel::<()>(1);
        let own = Arc::clone(&shared);
        let run = move || {
            Keeper { shared: own, tell, deny: None, blocked: None, retired: Vec::new(), list: Vec::new() }.run(&queue);
            drop(end);
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(run)?;
        Ok(Self { shared, changes, ended })
    }

    /// These files from now on.
    pub fn configure(&self, settings: &Settings) {
        *self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings.clone());
        self.change(Change::Settings);
    }

    /// Hands a change over. Never waits.
    pub fn change(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            self.shared.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Has the last changes written, unless that takes too long.
    pub fn end(self) {
        let Self { changes, ended, .. } = self;
        drop(changes);
        let _ = ended.recv_timeout(LAST_WRITING);
    }
}

struct Keeper {
    shared: Arc<Shared>,
    tell: Tell,
    deny: Option<(super::protocol::HostsDeny, HostsDeny)>,
    blocked: Option<(PathBuf, BlockedFiles)>,
    /// What is not used any more, and has to lose our lines.
    retired: Vec<Box<dyn Kept>>,
    /// The pieces of a list that is not whole yet.
    list: Vec<Blocked>,
}

impl Keeper {
    fn run(mut self, queue: &Receiver<Change>) {
        loop {
            let change = match self.next_due(Instant::now()) {
                Some(due) => queue.recv_timeout(due),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            self.look_at_settings();
            match change {
                Ok(change) => self.take(change),
                Err(RecvTimeoutError::Timeout) => self.write(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // Changes may come without a pause: what is due is due.
            if self.next_due(Instant::now()).is_some_and(|due| due.is_zero()) {
                self.write(Instant::now());
            }
            if self.shared.lost.swap(false, Ordering::Relaxed) {
                (self.tell)(Word::ListWanted);
            }
        }
        self.write(Instant::now() + GATHERED);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut dyn Kept> {
        let deny = self.deny.iter_mut().map(|(_, file)| file as &mut dyn Kept);
        let blocked = self.blocked.iter_mut().map(|(_, files)| files as &mut dyn Kept);
        deny.chain(blocked).chain(self.retired.iter_mut().map(|kept| &mut **kept as &mut dyn Kept))
    }

    fn next_due(&mut self, now: Instant) -> Option<Duration> {
        self.all().filter_map(|kept| kept.next_due(now)).min()
    }

    fn write(&mut self, now: Instant) {
        let words = self.all().flat_map(|kept| kept.write(now)).collect();
        self.retired.retain(|kept| !kept.is_idle());
        self.tell_all(words);
    }

    fn tell_all(&self, words: Vec<Word>) {
        words.into_iter().for_each(|word| (self.tell)(word));
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Blocked(block) => self.add(&block),
            Change::Unblocked(target) => {
                if let Some((_, file)) = &mut self.deny {
                    file.remove(&target);
                }
                if let Some((_, files)) = &mut self.blocked {
                    files.remove(&target);
                }
            }
            Change::List(List { first, last, whole, blocks }) => {
                if first {
                    self.list.clear();
                }
                self.list.extend(blocks);
                if last {
                    let list = std::mem::take(&mut self.list);
                    self.replace(&list, whole);
                }
            }
            Change::Settings => {}
        }
    }

    fn add(&mut self, block: &Blocked) {
        if let Some((_, file)) = &mut self.deny {
            file.add(&block.target);
        }
        if let (Some((_, files)), Some(entry)) = (&mut self.blocked, entry(block)) {
            files.add(entry);
        }
    }

    fn replace(&mut self, list: &[Blocked], whole: bool) {
        if let Some((_, file)) = &mut self.deny {
            file.replace(list.iter().map(|block| block.target.clone()));
        }
        if let Some((_, files)) = &mut self.blocked {
            if whole {
                files.retain(&list.iter().map(|block| block.target.clone()).collect::<HashSet<_>>());
            }
            let mut entries: Vec<_> = list.iter().filter_map(|block| Some((block.at, entry(block)?))).collect();
            entries.sort_by_key(|(at, _)| *at);
            for (_, entry) in entries {
                files.add(entry);
            }
        }
    }

    /// Takes new settings, if there are any. A file that is not named any more loses our lines.
    fn look_at_settings(&mut self) {
        let settings = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(settings) = settings else { return };
        let now = Instant::now();
        let mut told = Vec::new();
        if self.deny.as_ref().map(|(wanted, _)| wanted) != settings.hosts_deny.as_ref() {
            if let Some((_, mut file)) = self.deny.take() {
                told.extend(file.take_out(now));
                self.retire(file);
            }
            self.deny = settings.hosts_deny.map(|wanted| (wanted.clone(), HostsDeny::new(wanted.path, wanted.line)));
        }
        if self.blocked.as_ref().map(|(base, _)| base) != settings.blocked_file.as_ref() {
            if let Some((_, mut files)) = self.blocked.take() {
                told.extend(files.take_out(now));
                self.retire(files);
            }
            self.blocked = settings.blocked_file.map(|base| (base.clone(), BlockedFiles::new(base)));
        }
        if let Some((_, files)) = &mut self.blocked {
            let modes: Vec<_> = settings.modes.iter().filter_map(|word| ClassicMode::of_word(word)).collect();
            files.use_modes(&modes);
        }
        self.tell_all(told);
    }

    fn retire(&mut self, kept: impl Kept + 'static) {
        if !kept.is_idle() && self.retired.len() < RETIRED_MAX {
            self.retired.push(Box::new(kept));
        }
    }
}

/// A block as a line of the file of its mode; `None` for one by hand, and for one whose port nobody knows.
fn entry(block: &Blocked) -> Option<Entry> {
    Some(Entry { mode: ClassicMode::of_word(block.mode.as_deref()?)?, subject: block.target.clone(), line: block.line.clone()? })
}

#[cfg(test)]
mod tests {
    use super::super::protocol;
    use super::*;
    use crate::helper::tests::eventually;

    fn block(target: &str, mode: Option<&str>) -> Blocked {
        let line = mode.map(|_| format!("1795188400 - 11/20/2026 15:26:40 Host: {target}/{target} Port: 7 TCP Blocked"));
        Blocked { target: target.to_owned(), mode: mode.map(str::to_owned), at: 1_795_188_400, line }
    }

    fn settings(directory: &std::path::Path) -> Settings {
        Settings {
            hosts_deny: Some(protocol::HostsDeny { path: directory.join("hosts.deny"), line: "ALL: {target}".to_owned() }),
            blocked_file: Some(directory.join("blocked")),
            modes: vec!["atcp".to_owned()],
            ..Settings::default()
        }
    }

    fn words() -> (Tell, Arc<Mutex<Vec<Word>>>) {
        let words = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&words);
        (Arc::new(move |word| own.lock().unwrap().push(word)), words)
    }

    #[test]
    fn files_follow_what_is_told_and_lose_our_lines_when_they_are_not_named_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        std::fs::write(directory.path().join("hosts.deny"), "ALL: 203.0.113.9\n").unwrap();
        let (tell, told) = words();
        let files = Files::start(tell).unwrap();
        files.configure(&settings(directory.path()));
        let list = |blocks| Change::List(List { first: true, last: true, whole: true, blocks });
        files.change(list(vec![block("192.0.2.1", Some("atcp")), block("192.0.2.0/28", None)]));
        files.change(Change::Blocked(block("192.0.2.2", Some("atcp"))));
        files.change(Change::Unblocked("192.0.2.1".to_owned()));
        let seen = || read("hosts.deny").contains("192.0.2.2") && read("blocked.atcp").contains("192.0.2.2");
        assert!(eventually(seen), "{:?}", told.lock().unwrap());
        assert!(!read("hosts.deny").contains("192.0.2.1\n") && !read("blocked.atcp").contains("192.0.2.1/"));
        assert_eq!(read("blocked.atcp").lines().count(), 1, "a block by hand has no line there");
        files.configure(&Settings::default());
        assert!(eventually(|| read("hosts.deny") == "ALL: 203.0.113.9\n" && read("blocked.atcp").is_empty()), "{}", read("hosts.deny"));
        files.end();
    }

    #[test]
    fn the_last_changes_are_written_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (tell, _) = words();
        let files = Files::start(tell).unwrap();
        files.configure(&settings(directory.path()));
        let blocks = vec![block("192.0.2.1", Some("atcp"))];
        files.change(Change::List(List { first: true, last: true, whole: true, blocks }));
        files.end();
        for name in ["hosts.deny", "blocked.atcp"] {
            assert!(std::fs::read_to_string(directory.path().join(name)).unwrap().contains("192.0.2.1"), "{name}");
        }
    }
}

//! The thread that keeps text files in step with the blocks. It may wait for a disk; no other
//! thread waits for it.
//!
//! Connects the daemon's orders with [`hosts_deny`](super::hosts_deny) and
//! [`blocked_files`](super::blocked_files). A change that does not fit its queue is not lost: the
//! thread asks for the list of all blocks.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Notify;
use super::blocked_files::{BlockedFiles, Entry};
use super::hosts_deny::HostsDeny;
use super::mirror::MirrorFile;
use super::protocol::{Blocked, List, Message, Settings};
use crate::config::ClassicMode;
use crate::sys::reach::Reach;
use crate::sys::{confine, peer, queue};

/// Orders that wait for a slow disk: a whole list of blocks in chunks, and some thousand changes.
const QUEUE: usize = 4096;

/// Files no longer used that could not be emptied yet: paths are not changed more often while a
/// disk is broken.
const RETIRED_MAX: usize = 4;

/// Added to the clock for the last writes, so that they happen without gathering.
const GATHERED: Duration = Duration::from_secs(5);

/// Time limit of the last writes.
const LAST_WRITING: Duration = Duration::from_secs(2);

/// Messages to the thread.
pub(super) enum Change {
    /// A block is in force.
    Blocked(Blocked),
    /// A block is over.
    Unblocked(String),
    /// A chunk of the list of all blocks.
    List(List),
    /// There are new settings.
    Settings,
}

#[derive(Default)]
struct Shared {
    settings: Mutex<Option<Settings>>,
    /// A change found the queue full.
    lost: AtomicBool,
}

/// A handle to the thread.
pub(super) struct Files {
    shared: Arc<Shared>,
    changes: queue::Sender<Change>,
    ended: Receiver<()>,
}

impl Files {
    /// Starts the thread; no file is touched before settings name one.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(notify: Notify) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (changes, queued) = queue::bounded(QUEUE);
        let (end, ended) = sync_channel::<()>(1);
        let own = Arc::clone(&shared);
        let run = move || {
            FileWorker {
                shared: own,
                notify,
                settings: Settings::default(),
                deny: None,
                blocked: None,
                retired: Vec::new(),
                list: Vec::new(),
            }
            .run(&queued);
            drop(end);
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(move || {
            confine::no_exec(Reach::Files);
            run()
        })?;
        Ok(Self { shared, changes, ended })
    }

    /// Uses these files from now on.
    pub(super) fn configure(&self, settings: &Settings) {
        *self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(settings.clone());
        self.change(Change::Settings);
    }

    /// Queues a change. Never waits.
    pub(super) fn change(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            self.shared.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Writes the last changes, within a time limit.
    pub(super) fn end(self) {
        let Self { changes, ended, .. } = self;
        drop(changes);
        let _ = ended.recv_timeout(LAST_WRITING);
    }
}

struct FileWorker {
    shared: Arc<Shared>,
    notify: Notify,
    /// The settings that `deny` and `blocked` follow.
    settings: Settings,
    deny: Option<HostsDeny>,
    blocked: Option<BlockedFiles>,
    /// Files that are no longer used and from which our lines must be removed.
    retired: Vec<Box<dyn MirrorFile>>,
    /// Chunks of an incomplete list.
    list: Vec<Blocked>,
}

impl FileWorker {
    fn run(mut self, queued: &queue::Receiver<Change>) {
        loop {
            let due = self.next_due(Instant::now()).unwrap_or(Duration::MAX);
            let change = queued.recv_timeout(due);
            self.apply_settings();
            match change {
                Ok(change) => self.take(change),
                Err(RecvTimeoutError::Timeout) => self.write(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // Changes may arrive without a pause, and due work must still be done.
            if self.next_due(Instant::now()).is_some_and(|due| due.is_zero()) {
                self.write(Instant::now());
            }
            if self.shared.lost.swap(false, Ordering::Relaxed) {
                (self.notify)(Message::ListWanted);
            }
        }
        self.write(Instant::now() + GATHERED);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut dyn MirrorFile> {
        let deny = self.deny.iter_mut().map(|file| file as &mut dyn MirrorFile);
        let blocked = self.blocked.iter_mut().map(|files| files as &mut dyn MirrorFile);
        deny.chain(blocked)
            .chain(self.retired.iter_mut().map(|file| &mut **file as &mut dyn MirrorFile))
    }

    fn next_due(&mut self, now: Instant) -> Option<Duration> {
        self.all().filter_map(|file| file.next_due(now)).min()
    }

    fn write(&mut self, now: Instant) {
        let messages = self.all().flat_map(|file| file.write(now)).collect();
        self.retired.retain(|file| !file.is_idle());
        self.notify_all(messages);
    }

    fn notify_all(&self, messages: Vec<Message>) {
        messages.into_iter().for_each(|message| (self.notify)(message));
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Blocked(block) => {
                if let Some(file) = &mut self.deny {
                    file.add(&block.target);
                }
                if let (Some(files), Some(entry)) = (&mut self.blocked, entry(&block)) {
                    files.add(entry);
                }
            }
            Change::Unblocked(target) => {
                if let Some(file) = &mut self.deny {
                    file.remove(&target);
                }
                if let Some(files) = &mut self.blocked {
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
                    self.replace(list, whole);
                }
            }
            Change::Settings => {}
        }
    }

    fn replace(&mut self, mut list: Vec<Blocked>, whole: bool) {
        if let Some(file) = &mut self.deny {
            file.replace(list.iter().map(|block| block.target.clone()));
        }
        if let Some(files) = &mut self.blocked {
            if whole {
                files
                    .retain(&list.iter().map(|block| block.target.clone()).collect::<HashSet<_>>());
            }
            list.sort_by_key(|block| block.at);
            list.iter().filter_map(entry).for_each(|entry| files.add_listed(entry));
        }
    }

    /// Applies new settings, if there are any. Our lines are removed from files that are no longer
    /// named.
    fn apply_settings(&mut self) {
        let settings = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(settings) = settings else { return };
        if self.settings.hosts_deny != settings.hosts_deny {
            let wanted = settings.hosts_deny.clone();
            let new = wanted.map(|wanted| HostsDeny::new(wanted.path, wanted.line));
            let old = std::mem::replace(&mut self.deny, new);
            self.retire(old);
        }
        if self.settings.blocked_file != settings.blocked_file {
            let group = self.group(&settings.group);
            let new = settings.blocked_file.clone().map(|base| BlockedFiles::new(base, group));
            let old = std::mem::replace(&mut self.blocked, new);
            self.retire(old);
        }
        if let Some(files) = &mut self.blocked {
            let modes: Vec<_> =
                settings.modes.iter().filter_map(|word| ClassicMode::of_word(word)).collect();
            files.use_modes(&modes);
        }
        self.settings = settings;
    }

    /// The id of the group that reads the blocked files.
    fn group(&self, name: &str) -> Option<u32> {
        if name.is_empty() {
            return None;
        }
        let group = peer::group_id(name).ok().flatten();
        if group.is_none() {
            let text = format!(
                "control.group: there is no group {name:?}: root alone reads the blocked files"
            );
            (self.notify)(Message::Warning(text));
        }
        group
    }

    fn retire(&mut self, file: Option<impl MirrorFile + 'static>) {
        let Some(mut file) = file else { return };
        self.notify_all(file.remove_all(Instant::now()));
        if !file.is_idle() && self.retired.len() < RETIRED_MAX {
            self.retired.push(Box::new(file));
        }
    }
}

/// A block as a line of its mode's file; `None` for a manual block, and if the port is unknown.
fn entry(block: &Blocked) -> Option<Entry> {
    Some(Entry {
        mode: ClassicMode::of_word(block.mode.as_deref()?)?,
        subject: block.target.clone(),
        line: block.line.clone()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::protocol;
    use super::*;
    use crate::helper::tests::eventually;

    fn block(target: &str, mode: Option<&str>) -> Blocked {
        let line = mode.map(|_| {
            format!("1795188400 - 11/20/2026 15:26:40 Host: {target}/{target} Port: 7 TCP Blocked")
        });
        Blocked {
            target: target.to_owned(),
            mode: mode.map(str::to_owned),
            at: 1_795_188_400,
            line,
        }
    }

    fn settings(directory: &std::path::Path) -> Settings {
        Settings {
            hosts_deny: Some(protocol::HostsDeny {
                path: directory.join("hosts.deny"),
                line: "ALL: {target}".to_owned(),
            }),
            blocked_file: Some(directory.join("blocked")),
            modes: vec!["atcp".to_owned()],
            ..Settings::default()
        }
    }

    fn messages() -> (Notify, Arc<Mutex<Vec<Message>>>) {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&messages);
        (Arc::new(move |message| own.lock().unwrap().push(message)), messages)
    }

    #[test]
    fn files_follow_the_blocks_and_lose_our_lines_when_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let read =
            |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        std::fs::write(directory.path().join("hosts.deny"), "ALL: 203.0.113.9\n").unwrap();
        let (notify, messages) = messages();
        let files = Files::start(notify).unwrap();
        files.configure(&settings(directory.path()));
        let list = |blocks| Change::List(List { first: true, last: true, whole: true, blocks });
        files.change(list(vec![block("192.0.2.1", Some("atcp")), block("192.0.2.0/28", None)]));
        files.change(Change::Blocked(block("192.0.2.2", Some("atcp"))));
        files.change(Change::Unblocked("192.0.2.1".to_owned()));
        let seen = || {
            read("hosts.deny").contains("192.0.2.2") && read("blocked.atcp").contains("192.0.2.2")
        };
        assert!(eventually(seen), "{:?}", messages.lock().unwrap());
        assert!(
            !read("hosts.deny").contains("192.0.2.1\n")
                && !read("blocked.atcp").contains("192.0.2.1/")
        );
        assert_eq!(read("blocked.atcp").lines().count(), 1, "a block by hand has no line there");
        files.configure(&Settings::default());
        assert!(
            eventually(
                || read("hosts.deny") == "ALL: 203.0.113.9\n" && read("blocked.atcp").is_empty()
            ),
            "{}",
            read("hosts.deny")
        );
        files.end();
    }

    #[test]
    fn the_last_changes_are_written_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (notify, _) = messages();
        let files = Files::start(notify).unwrap();
        files.configure(&settings(directory.path()));
        let blocks = vec![block("192.0.2.1", Some("atcp"))];
        files.change(Change::List(List { first: true, last: true, whole: true, blocks }));
        files.end();
        for name in ["hosts.deny", "blocked.atcp"] {
            assert!(
                std::fs::read_to_string(directory.path().join(name)).unwrap().contains("192.0.2.1"),
                "{name}"
            );
        }
    }
}

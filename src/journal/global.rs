//! The process's logger: sends records of the `log` crate to the journal's thread, without waiting.
//!
//! While no journal runs, lines go straight to standard error.

use std::io::Write;
use std::sync::RwLock;

use log::{LevelFilter, Log, Metadata, Record};

use super::JournalHandle;
use super::format::{cut, printable};

static JOURNAL: RwLock<Option<JournalHandle>> = RwLock::new(None);

struct Global;

/// Installs the logger. Lines go to standard error until a journal starts. A logger that is already
/// installed stays.
pub fn install() {
    // An error means that a logger is installed already: this one, or a test's.
    if log::set_logger(&Global).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Sends lines to this journal from now on.
pub(super) fn connect(journal: JournalHandle) {
    if let Ok(mut place) = JOURNAL.write() {
        *place = Some(journal);
    }
}

/// Sends lines to standard error from now on, if they went to this journal.
pub(super) fn disconnect(journal: &JournalHandle) {
    if is_connected(journal)
        && let Ok(mut place) = JOURNAL.write()
    {
        *place = None;
    }
}

/// Whether lines go to this journal.
pub(super) fn is_connected(journal: &JournalHandle) -> bool {
    JOURNAL.read().is_ok_and(|place| place.as_ref().is_some_and(|current| current.is_same(journal)))
}

impl Log for Global {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The netlink crate logs each message at debug level; our own log shows enough.
        metadata.target().starts_with("portsentry") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // The writer holds the lock for one assignment; a line of that moment goes to standard
        // error.
        if let Ok(place) = JOURNAL.try_read()
            && let Some(journal) = &*place
        {
            return journal.notify_message(record.level(), record.target(), record.args());
        }
        let text = cut(printable(&record.args().to_string()).into_owned());
        // If standard error is closed, there is no place left to report it.
        let _ = writeln!(
            std::io::stderr(),
            "portsentry: {}: {text}",
            record.level().as_str().to_ascii_lowercase()
        );
    }

    fn flush(&self) {}
}

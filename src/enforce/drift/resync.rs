//! Looks for what is in the kernel's sets and in no books, after a loss of notifications.
//!
//! To read a large set takes seconds, with the square of its size: so a thread of its own reads, and what it brings is taken in pieces.

use std::thread::JoinHandle;
use std::time::Duration;

use super::Author;
use crate::packet::Sentry;
use crate::engine::Moment;
use crate::nft::{Connection, Error, Key};
use crate::responder::{host, place, words};
use crate::ruleset::{SCHEMA, SetId};

/// Nothing tells that the thread is done: it is asked this often.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Elements of a look at the sets that are compared with the books between two looks at packets: a millisecond.
const LOOKED_A_WAKE: usize = 10_000;

/// Keys of elements with their sets.
type Keys = Vec<(SetId, Key)>;

/// A look at the sets of blocked hosts.
#[derive(Default)]
pub(super) struct Look {
    reader: Option<JoinHandle<Result<Keys, Error>>>,
    found: Keys,
}

impl Look {
    /// Whether none goes on, and the last one's findings are taken.
    fn is_idle(&self) -> bool {
        self.reader.is_none() && self.found.is_empty()
    }

    fn begin(&mut self) {
        match std::thread::Builder::new().name("look".to_owned()).spawn(read) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => log::warn!("what others put into the blocked sets cannot be looked for: {error}"),
        }
    }

    /// So many of those that were found, each once.
    fn take(&mut self, most: usize) -> Keys {
        if let Some(reader) = self.reader.take_if(|reader| reader.is_finished()) {
            match reader.join() {
                Ok(Ok(found)) => self.found = found,
                // A set that is gone is another notification.
                Ok(Err(error)) => log::warn!("what others put into the blocked sets cannot be looked for: {}", words(&error)),
                Err(_) => {}
            }
        }
        let piece = self.found.split_off(self.found.len().saturating_sub(most));
        if self.found.is_empty() {
            self.found = Vec::new();
        }
        piece
    }

    /// When there is something to do.
    pub(super) fn next_timer(&self, now: Moment) -> Option<Moment> {
        if self.found.is_empty() { self.reader.is_some().then(|| now.after(ASKED_EVERY)) } else { Some(now) }
    }
}

impl Sentry {
    /// What is in the sets and was not told is taken over as what was. First comes back what the books know: then the kernel has as many or more.
    pub(super) fn look_for_unknown(&mut self) {
        let Self { foreign, court, .. } = self;
        if foreign.unsure && foreign.backlog.is_empty() && !foreign.pending.structure && foreign.look.is_idle() {
            (foreign.unsure, foreign.pending.networks) = (false, true);
            let known = |id: SetId| court.engine.blocks().filter(|block| place(block.subject).0 == id).count();
            match court.responder.connection().sets() {
                Ok(sets) => {
                    let count = |id: SetId| sets.iter().find(|set| set.name == id.name()).and_then(|set| set.count);
                    // Kernels before 6.16 do not say.
                    let has_more = |id| count(id).is_none_or(|count| usize::try_from(count).is_ok_and(|count| count > known(id)));
                    if [SetId::Blocked4, SetId::Blocked6].into_iter().any(has_more) {
                        foreign.look.begin();
                    }
                }
                Err(error) => log::warn!("{}", words(&error)),
            }
        }
        if !foreign.pending.has_no_elements() {
            return;
        }
        let found = foreign.look.take(LOOKED_A_WAKE).into_iter();
        let unknown = found.filter(|(_, key)| host(*key).is_some_and(|subject| court.engine.blocked(subject).is_none()));
        foreign.pending.added.extend(unknown);
        if !foreign.pending.added.is_empty() {
            foreign.author = Author::default();
        }
    }
}

fn read() -> Result<Keys, Error> {
    let mut connection = Connection::open(SCHEMA)?;
    let mut all = Vec::new();
    for set in [SetId::Blocked4, SetId::Blocked6] {
        all.extend(connection.dump_keys(set)?.into_iter().map(|key| (set, key)));
    }
    Ok(all)
}

//! The DNS names of `allow`: has the helper look them up, and takes its answers.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::super::allowed_names::Changed;
use super::Supervisor;
use crate::helper::protocol::Addresses;
use crate::journal::Notice;

impl Supervisor {
    /// When a DNS name of `allow` is due; `None`: there are none.
    pub(super) fn names_at(&self) -> Option<Instant> {
        let refresh = self.view.lock().config.allow_refresh;
        self.guard.names.next_at(Instant::now(), refresh)
    }

    /// Has the helper look up the DNS names that are due. Returns whether one failed.
    pub(super) fn look_up_names(&mut self) -> bool {
        let refresh = self.view.lock().config.allow_refresh;
        let (due, mut has_failed) = self.guard.names.due(Instant::now(), refresh);
        for name in due {
            if !self.helper.look_up(&name) {
                self.guard.names.not_asked(&name);
                has_failed = true;
            }
        }
        if has_failed {
            self.show_names();
        }
        has_failed
    }

    /// Takes what the resolver says of a DNS name: an address that joins it is exempt at once.
    pub(super) fn take_addresses(&mut self, found: Addresses) {
        let name = found.name.clone();
        let complaints = self.guard.names.complaints();
        let changed = self.guard.names.answered(found, Timestamp::now());
        // Most answers change nothing, and to gather the list asks the kernel for routes and sockets.
        let is_news = changed.is_some() || self.guard.names.complaints() != complaints;
        let protected = if is_news { self.protect() } else { Ok(()) };
        self.show_names();
        match (protected, changed) {
            (Ok(()), Some(Changed { added, removed })) => {
                self.journal.notify(Notice::AllowedName { name, added, removed });
            }
            (Ok(()), None) => {}
            // Tried again with the next list.
            (Err(error), _) => {
                log::error!("the never-block list could not be renewed: {error}");
            }
        }
    }

    pub(super) fn show_names(&self) {
        self.view.lock().names = Arc::new(self.guard.names.view());
    }
}

//! Reading ahead: what the next probes need of the ledger is brought into the processor's caches
//! together.
//!
//! In a ledger of a hundred thousand sources most of a probe's time is waiting for memory, for two to
//! four cache lines one after the other. Those of several probes can be waited for at once.

use super::{Hashed, INDEX, Ledger, Place, SUSPECT};
use crate::sys::prefetch::prefetch;

impl Ledger {
    /// Reads where each of these accounts is, and changes nothing.
    pub(in crate::engine) fn read_ahead(&self, accounts: &[Hashed]) {
        for account in accounts {
            self.index.read_ahead(account.hash);
        }
        for account in accounts {
            if let Some(place) = self.index.first(account.hash) {
                self.read_ahead_place(place);
            }
        }
    }

    /// Reads what a touch needs of the account that is probably at this place.
    fn read_ahead_place(&self, place: Place) {
        let at = place.0 & INDEX;
        if place.0 & SUSPECT == 0 {
            self.newcomers.read_ahead(at);
        } else {
            self.suspects.read_ahead(at);
            if let Some(slot) = self.slots(at).first() {
                prefetch(slot);
            }
        }
    }
}

//! What the control server shows and the supervisor keeps true.
//!
//! Shared by these two threads; the packet thread is none of them, so it never waits for this lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::allowed_names::NameView;
use super::protected::Protected;
use super::switches::Switches;
use crate::config::{Config, Loaded};
use crate::nft::Ruleset;

/// What the control server shows and the supervisor keeps true.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The configuration in force: as the files have it, but for what was switched.
    pub config: Arc<Config>,
    /// The configuration as it was loaded.
    pub loaded: Arc<Loaded>,
    /// When the files were read last.
    pub read: ConfigRead,
    /// What was switched since.
    pub switches: Switches,
    /// Its rules.
    pub ruleset: Arc<Ruleset>,
    /// What is never blocked, and why.
    pub protected: Arc<Protected>,
    /// DNS names that are never blocked.
    pub names: Arc<Vec<NameView>>,
    /// Warnings that come and go without the configuration: what cannot be learned, and interfaces
    /// that are not there.
    pub complaints: Vec<String>,
}

impl View {
    /// Of a configuration that is in force with these rules and this never-block list.
    pub(super) fn new(
        loaded: Arc<Loaded>,
        switches: Switches,
        ruleset: Ruleset,
        protected: Protected,
        complaints: Vec<String>,
    ) -> Self {
        Self {
            config: Arc::new(switches.over(&loaded.config)),
            loaded,
            read: ConfigRead { at: Timestamp::now(), is_in_force: true },
            switches,
            ruleset: Arc::new(ruleset),
            protected: Arc::new(protected),
            names: Arc::default(),
            complaints,
        }
    }
}

/// When the configuration was read last, and what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConfigRead {
    /// When.
    pub at: Timestamp,
    /// It is in force; else it was refused, and the one before it stays.
    pub is_in_force: bool,
}

/// A view that two threads share. The packet thread is none of them.
#[derive(Clone)]
pub(super) struct SharedView(Arc<Mutex<View>>);

impl SharedView {
    /// Shares `view`.
    pub(super) fn new(view: View) -> Self {
        Self(Arc::new(Mutex::new(view)))
    }

    /// The view, for a moment.
    pub(super) fn lock(&self) -> MutexGuard<'_, View> {
        // A thread that panics ends the process; what it left is still a view.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

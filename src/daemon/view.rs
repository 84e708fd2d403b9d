//! What the control server shows and the supervisor keeps true.
//!
//! Shared by these two threads; the packet thread is none of them, so it never waits for this lock.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::protected::Protected;
use crate::config::{Config, Loaded};
use crate::nft::Ruleset;

/// What the control server shows and the supervisor keeps true.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// What its ignore file named when it was read.
    pub ignored: Arc<[IpNet]>,
    /// The file it came from; `None`: the built-in defaults.
    pub from: Option<PathBuf>,
    /// Its rules.
    pub ruleset: Arc<Ruleset>,
    /// What is never blocked, and why.
    pub protected: Arc<Protected>,
    /// What the administrator should see to.
    pub warnings: Vec<String>,
    /// The same of what changes without the configuration: what cannot be learned, and interfaces
    /// that are not there.
    pub complaints: Vec<String>,
}

impl View {
    /// Of a configuration that is in force with these rules and this never-block list.
    pub(super) fn new(
        loaded: Loaded,
        ruleset: Ruleset,
        protected: Protected,
        complaints: Vec<String>,
    ) -> Self {
        let Loaded { config, ignored, warnings, from } = loaded;
        Self {
            config: Arc::new(config),
            ignored: ignored.into(),
            from,
            ruleset: Arc::new(ruleset),
            protected: Arc::new(protected),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            complaints,
        }
    }
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

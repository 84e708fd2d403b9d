//! Every direct system call, and every `unsafe`.

pub(crate) mod broker;
pub mod clock;
pub mod confine;
pub(crate) mod files;
pub(crate) mod ipvs;
pub(crate) mod login_sessions;
pub(crate) mod mailbox;
pub mod peer;
pub mod poll;
pub(crate) mod prefetch;
pub(crate) mod privilege;
pub mod process;
pub(crate) mod procfs;
pub(crate) mod queue;
pub mod reach;
pub(crate) mod replace;
pub mod resolv_conf;
pub(crate) mod schedule;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod sqlite;
pub(crate) mod terminal;
pub(crate) mod transparent;
pub mod users;
pub(crate) mod wake;

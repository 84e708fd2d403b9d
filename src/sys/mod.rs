//! Every direct system call, and every `unsafe`.

pub mod clock;
pub mod files;
pub mod mailbox;
pub mod peer;
pub mod poll;
pub mod privilege;
pub mod process;
pub mod procfs;
pub mod replace;
pub mod resolv_conf;
pub mod schedule;
pub mod signals;
pub mod socket;
pub mod transparent;
pub mod wake;

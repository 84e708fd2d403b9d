//! What touches the world outside netlink: text files that other programs read.
//!
//! All of it is used inside the helper process, by one thread that may wait for disks. Nothing here decides who is blocked: it is told.

pub mod blocked_files;
pub mod hosts_deny;
mod mirror;
mod section;
pub mod told;

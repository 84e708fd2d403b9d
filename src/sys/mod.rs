//! Every direct system call, and every `unsafe`.

pub mod clock;
pub mod files;
pub mod peer;
pub mod poll;
pub mod socket;
pub mod wake;

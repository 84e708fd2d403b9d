//! Every direct system call, and every `unsafe`.

pub mod clock;
pub mod files;
pub mod poll;
pub mod socket;

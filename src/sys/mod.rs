//! Every direct system call, and every `unsafe`.

pub mod clock;
pub mod memory;
pub mod poll;
pub mod resolv_conf;
pub mod socket;

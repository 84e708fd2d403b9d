//! The same table, set, chain and element by five roads: this project's encoder, libnftnl (nftnl +
//! mnl), rustables, nlink, and spawning nft(8).
//!
//! The tests hold what the kernel then lists against each other; the program times the roads side
//! by side.

pub mod libnftnl;
pub mod namespace;
pub mod nft_program;
pub mod nlink_crate;
pub mod ours;
pub mod rustables_crate;
pub mod sender;

use std::net::Ipv4Addr;

/// The table that every road builds.
pub const TABLE: &str = "portsentry";
/// The set in it: IPv4 addresses with a timeout.
pub const SET: &str = "blocked4";
/// The base chain in it: filter, prerouting, priority -450, policy accept.
pub const CHAIN: &str = "gate";
/// The set's default timeout, milliseconds: rustables cannot give an element one of its own.
pub const TIMEOUT_MS: u64 = 3_600_000;

/// One way to make the kernel do it. Every method returns after the kernel's acknowledgement.
pub trait Road {
    /// What the tables call it.
    fn name(&self) -> &'static str;
    /// Builds table, set and chain in one transaction.
    fn build(&mut self) -> Result<(), String>;
    /// Adds an element.
    fn add(&mut self, address: Ipv4Addr) -> Result<(), String>;
}

/// All roads, ours first.
pub fn roads() -> Result<Vec<Box<dyn Road>>, String> {
    Ok(vec![
        Box::new(ours::Ours::open()?),
        Box::new(libnftnl::Libnftnl::open()?),
        Box::new(rustables_crate::Rustables),
        Box::new(nlink_crate::Nlink::open()?),
        Box::new(nft_program::NftProgram),
    ])
}

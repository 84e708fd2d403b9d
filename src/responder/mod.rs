//! Carries the engine's actions out and brings the kernel's answer back.
//!
//! It decides nothing: what the engine orders is done or fails, and either is told to the engine as an [`Outcome`](crate::engine::Outcome).

mod nft;

pub use nft::{BLOCKED, NftResponder, blocked, blocked_networks, blocked_where_there, count_blocked, host, place, words};

//! PortSentry for nftables: a port scan is seen in the kernel, judged here, and stopped by an element in an nftables set.
//!
//! ```text
//!  kernel --NFLOG--> capture -> wire -> probe ---> engine --Action--> responder -> nft set
//!     |                                            ^ |  ^                 |
//!     +--tproxy--> decoy --handshakes--------------+ |  +---- Outcome ----+
//!                    ^                               |
//!                    +--trigger passed: banner-------+
//!
//!  engine --Report--+--> journal: log, history, whoever watches
//!                   +--> helper, the second process: commands, hosts.deny, reverse names for the journal
//!
//!  engine <--> control <--> portsentryctl
//! ```
//!
//! The modules, in the order in which a packet meets them:
//!
//! * [`config`]: the administrator's file, checked; everything below is told by it what to do.
//! * [`ruleset`]: our table: what a configuration means in sets, chains and rules.
//! * [`nft`]: nf_tables, whatever the table: rulesets as a typed model, rendered as text and as netlink; the connection to the kernel.
//! * [`capture`]: packets that the rules logged, as they leave the kernel.
//! * [`wire`]: total parsers of IP and its transports.
//! * [`probe`]: one observed fact: who touched which port, and how.
//! * [`decoy`]: connect mode: sockets that the rules lead whole handshakes to. Each is a probe for the engine; the banner comes after the block.
//! * [`engine`]: who scans, and what follows from it. No clock, socket, file or lock inside.
//! * [`responder`]: carries the engine's actions out and brings the kernel's answer back.
//! * [`journal`]: what happened, told: log lines, history, whoever watches.
//! * [`helper`]: the second process, and the way to it: commands, hosts.deny, files of what is blocked, reverse names. No packet waits for it.
//! * [`control`] and [`ctl`]: the socket that `portsentryctl` speaks, and `portsentryctl`.
//! * [`daemon`]: threads, signals, reload, and what the helper is told. The only module that knows all others.
//! * `time`, `rate` and `backoff`: points in time, rate limits and waits between attempts, without a clock.
//! * [`netlink`] and [`sys`]: the ground: netlink messages and sockets; every direct system call.
#![doc(html_no_source)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may stop where it fails")
)]

pub(crate) mod backoff;
pub mod capture;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod decoy;
pub mod enforce;
pub mod engine;
pub mod errors;
pub mod helper;
pub mod journal;
pub mod netlink;
pub mod nft;
pub mod packet;
pub mod probe;
pub(crate) mod rate;
pub mod ruleset;
pub mod store;
pub mod sys;
pub(crate) mod time;
pub mod wire;

/// The reader of manual pages that the tests share.
#[cfg(test)]
#[path = "../tests/support/mdoc.rs"]
mod mdoc;

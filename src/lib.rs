//! PortSentry for nftables: the kernel reports probes, the engine recognises port scans, and an
//! element in an nftables set blocks the source.
//!
//! ```text
//!  kernel --NFLOG or NFQUEUE--> capture -> wire -> probe --> engine --Action--> enforce -> nft --> set
//!     |                                                      ^ |  ^                |
//!     +--tproxy--> decoy --handshakes------------------------+ |  +--- Outcome ----+
//!                    ^                                         |
//!                    +------------- trigger exceeded: banner --+
//!
//!  engine --Report--+--> journal: log, history, watchers
//!                   +--> store: SQLite
//!                   +--> helper, the second process: commands, hosts.deny, reverse names
//!
//!  ctl <--> control <--> engine
//! ```
//!
//! [`packet`] runs the first part on one thread. The modules, in the order in which a packet meets
//! them:
//!
//! * [`config`]: the administrator's file, checked; the other modules follow it.
//! * [`ruleset`]: our table: the sets, chains and rules of a configuration.
//! * [`nft`]: an nf_tables codec for any table: typed model, text, netlink, connection to the
//!   kernel.
//! * [`capture`]: receives the packets that the rules log or queue.
//! * [`wire`]: total parsers of IP and its transports.
//! * [`probe`]: an observed fact: which source touched which port, and how.
//! * [`decoy`]: connect mode: listening sockets whose completed handshakes are probes; sends the
//!   banner.
//! * [`engine`]: recognises scans and decides about blocks. No clock, socket, file or lock inside.
//! * [`enforce`]: makes the kernel's sets match the engine's blocks, and repairs foreign changes to
//!   the table.
//! * [`packet`]: the packet thread: loop, intake, queue, commands from other threads, reload.
//! * [`store`]: blocks, offenders and evidence in SQLite, with its thread.
//! * [`journal`]: log lines, the history file, events for watchers.
//! * [`helper`]: the second process and its client: commands, hosts.deny, files of current blocks,
//!   reverse names.
//! * [`control`] and [`ctl`]: the control socket, and `portsentryctl`.
//! * [`replay`]: the same engine over capture files, without kernel, clock and privilege.
//! * [`daemon`]: start, supervisor, request handlers. The only module that knows all others.
//! * `time`, `rate` and `backoff`: points in time, rate limits and delays between attempts; none
//!   reads a clock.
//! * [`netlink`], [`sys`] and [`errors`]: netlink messages and sockets, system calls, error texts.
#![doc(html_no_source)]
#![warn(unreachable_pub)]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the documentation is for those who work on it: it is built with all private items"
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test may stop where it fails"
    )
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
pub mod replay;
pub mod ruleset;
pub mod store;
pub mod sys;
pub(crate) mod time;
pub mod wire;

#[cfg(test)]
mod schema;

/// Parser of manual pages, for tests.
#[cfg(test)]
#[path = "../tests/support/mdoc.rs"]
#[allow(unreachable_pub, reason = "the tests in tests/ include it too")]
mod mdoc;

//! The control socket: requests of `portsentryctl` and the daemon's answers.
//!
//! One unix stream socket; a request is one JSON object on a line, and so is each part of the
//! answer. Root and the configured group may read, only root may change; the kernel reports each
//! client's user (SO_PEERCRED).
//!
//! No client delays another. One thread ([`server`]) moves bytes and never computes; workers
//! compute the answers. Root has its own workers, one of them for changes only. Other users share
//! limited parts: see the constants in [`server`] (clients, watchers) and [`workers`] (answers),
//! which also bound the memory: for each client 64 KiB of request and about 128 KiB of answer (4
//! MiB for an answer of one line), 256 KiB of events for each watcher, and for each answer in
//! progress its rows: a page of the history, or the addresses of all blocks.

pub mod client;
mod connection;
pub(crate) mod handler;
pub(crate) mod listen;
pub mod protocol;
pub(crate) mod server;
mod stream;
pub(crate) mod workers;

pub use handler::{Answer, Caller, Cancelled, Handler};
pub use listen::{ListenError, Listener, listen};
pub use protocol::{
    AllowRow, AllowedName, BlockRow, CampaignFigures, Cause, Causes, ConfigLoaded, Decisions,
    Decoys, EventStore, GeoFiles, HistoryRow, Intake, Kind, ListRow, Loaded, NotDone, Observed,
    Outcome, Past, PortName, PortUse, Proof, Queues, Reflex, Refusal, Repairs, Reply, Request,
    Responses, Rights, RulesState, Selection, Several, Shown, Stamp, Standing, State, Status,
    Store, Target, Tested, TestedPort, TouchedRow, Tracked, Watching, WouldBeRow,
};
pub use server::{Feed, Server};

//! The control socket: what `portsentryctl` asks, and the daemon's answers.
//!
//! One unix stream socket; a request is one JSON object on one line, and so is each part of the answer. Reading is for root and the configured group,
//! changing for root alone; the kernel tells who asks (SO_PEERCRED). Nothing that a client does, or does not do, makes another one wait for long,
//! and all it can use up is bounded.

pub mod client;
mod connection;
pub mod desk;
pub mod listen;
pub mod protocol;
pub mod server;

pub use desk::{Answer, Desk, Rows};
pub use listen::{ListenError, Listener, listen};
pub use protocol::{
    AllowRow, BlockRow, Decoys, HistoryRow, Intake, Kind, Queues, Reflex, Refusal, Repairs, Reply, Request, Responses, Shown, Stamp, Status, Store,
    Target, Watching,
};
pub use server::{Feed, Server};

//! The control socket: what `portsentryctl` asks, and the daemon's answers.
//!
//! One unix stream socket; a request is one JSON object on one line, and so is each part of the answer. Reading is for root and the configured group,
//! changing for root alone; the kernel names the user of each client (SO_PEERCRED).
//!
//! No client makes another one wait. One thread ([`server`]) moves bytes and never computes; answers are computed by workers, of which root has its own,
//! one of them for changes alone. A user other than root gets a part of everything at most: see the constants in [`server`] (clients, watchers) and
//! [`workers`] (answers). Memory is bounded by them: 64 KiB of request and about 128 KiB of answer for each client (4 MiB where the answer is one line), 256
//! KiB of events for each that watches, and for each answer that is worked on what its rows take: up to 100,000 lines of history (15 MB), or the addresses
//! of all blocks.

pub mod client;
mod connection;
pub mod handler;
pub mod listen;
pub mod protocol;
pub mod server;
mod stream;
pub mod workers;

pub use handler::{Answer, Cancelled, Handler, Rows};
pub use listen::{ListenError, Listener, listen};
pub use protocol::{
    AllowRow, BlockRow, Decoys, HistoryRow, Intake, Kind, Queues, Reflex, Refusal, Repairs, Reply, Request, Responses, Shown, Stamp, Status, Store,
    Target, Watching,
};
pub use server::{Feed, Server};

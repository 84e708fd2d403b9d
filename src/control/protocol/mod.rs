//! The protocol of the control socket: requests and replies, each a JSON object on a line, with the
//! protocol's version in `v`.
//!
//! Keys are stable: programs read the output of `portsentryctl --json`. Pure: no sockets, no
//! execution of requests.

mod allowed;
mod line;
mod lists;
mod observed;
mod refusal;
mod reply;
mod request;
mod selection;
mod stamp;
mod status;
mod target;
mod tested;

pub use allowed::{AllowRow, AllowedName};
pub use line::{REPLY_MAX, VERSION, event_line, line};
pub use lists::{ListRow, Loaded};
pub use observed::{Observed, WouldBeRow};
pub use refusal::{Kind, Refusal};
pub use reply::{
    BlockRow, CampaignFigures, Cause, GeoFiles, HistoryRow, NotDone, Proof, ROWS_PER_LINE, Reply,
    Shown, State, TouchedRow,
};
pub use request::{
    KINDS_MAX, PORTS_MAX, Past, REASON_MAX, REQUEST_MAX, Request, Several, TARGETS_MAX,
};
pub use selection::{Order, Selection};
pub use stamp::Stamp;
pub use status::{
    Causes, ConfigLoaded, Decisions, Decoys, EventStore, Intake, Queues, Reflex, Repairs,
    Responses, Rights, RulesState, Status, Store, Tracked, Watching,
};
pub use target::{NoTarget, Target};
pub use tested::{Outcome, PortName, PortUse, Standing, Tested, TestedPort};

#[cfg(test)]
mod tests;

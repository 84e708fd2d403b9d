//! What happened, told: log lines in three formats, the history file, and the events that `portsentryctl watch` shows.

mod event;

pub use event::{Event, Notice};

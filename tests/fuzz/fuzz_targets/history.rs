//! Any line of the history file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::control::HistoryRow;
use portsentry::control::protocol::line;
use portsentry::journal::Record;
use portsentry::journal::history::Entry;

fuzz_target!(|text: &str| {
    if let Some(entry) = Entry::parse(text) {
        assert!(entry.host.len() + entry.protocol.len() < text.len());
        let _ = entry.network();
        line(&HistoryRow::from(Record::of_line(entry))).expect("a row fits into a line");
    }
});

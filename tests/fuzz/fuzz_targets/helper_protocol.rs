//! Any bytes on the socket between daemon and helper, in pieces of any size: lines that are read
//! write as themselves, and memory stays bounded.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use portsentry::helper::protocol::{LINE_MAX, Lines, Message, Order, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Everything that a stream says, and whether it ended with an error.
fn read_all<T: DeserializeOwned>(bytes: &[u8], piece: usize) -> (Vec<T>, bool) {
    let (mut lines, mut all) = (Lines::default(), Vec::new());
    for chunk in bytes.chunks(piece) {
        lines.push(chunk);
        loop {
            match lines.next_line() {
                Ok(Some(one)) => all.push(one),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8], piece: usize) {
    let (all, refused) = read_all::<T>(bytes, piece);
    assert_eq!(
        (&all, refused),
        (&read_all(bytes, bytes.len().max(1)).0, read_all::<T>(bytes, 1).1),
        "cut otherwise, it says something else"
    );
    for one in &all {
        // Escaping may make a line longer than it came.
        let Some(line) = encode(one) else { continue };
        assert!(line.len() <= LINE_MAX && line.iter().filter(|byte| **byte == b'\n').count() == 1);
        assert_eq!(read_all::<T>(&line, piece).0.as_slice(), std::slice::from_ref(one));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (piece, bytes) =
        bytes.split_first().map_or((1, bytes), |(first, rest)| (usize::from(*first) + 1, rest));
    check::<Order>(bytes, piece);
    check::<Message>(bytes, piece);
});

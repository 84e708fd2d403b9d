//! Any comment of an element that somebody put into our sets: the reason that is read from it fits into a comment, and reads back from there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::engine::Reason;

fuzz_target!(|text: &str| {
    let Ok(reason) = text.parse::<Reason>();
    let comment = reason.comment();
    assert!(comment.len() < 128 && !comment.chars().any(char::is_control));
    let Ok(again) = comment.parse::<Reason>();
    assert_eq!(again.comment(), comment);
});

//! Any comment of an element that somebody put into our sets: the reason that is read from it fits
//! into a comment, and what is read back from there settles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::engine::Reason;

fuzz_target!(|text: &str| {
    let Ok(reason) = text.parse::<Reason>();
    let comment = reason.comment();
    assert!(comment.len() < 128 && !comment.chars().any(char::is_control));
    // A foreign comment may read as one of ours; from then on it stays what it is.
    let Ok(again) = comment.parse::<Reason>();
    let Ok(once_more) = again.comment().parse::<Reason>();
    assert_eq!(once_more.comment(), again.comment());
});

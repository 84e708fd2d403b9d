//! Any line of a client: understood and the same when it is written again, or refused in words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::control::protocol::{Request, line};

fuzz_target!(|bytes: &[u8]| {
    match Request::parse(bytes) {
        Ok(request) => {
            let _ = request.changes();
            let written = line(&request).expect("a request fits into a line");
            assert_eq!(Request::parse(written.as_bytes()).as_ref(), Ok(&request), "{written}");
        }
        Err(refusal) => assert!(!refusal.message.is_empty() && !refusal.remedy.is_empty()),
    }
});

//! Any capture file: what is read lies inside of it, damage has its place, and a replay ends with the
//! same report each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::capture::files::{Reader, link};
use portsentry::config::Config;
use portsentry::replay::report_on;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut reader) = Reader::open(bytes) {
        let mut captured = 0;
        loop {
            match reader.next_packet() {
                Ok(Some(packet)) => {
                    captured += packet.data.len();
                    let _ = link::content(packet.link_type, packet.data);
                }
                Ok(None) => break,
                Err(damage) => {
                    assert!(damage.offset <= bytes.len() as u64);
                    assert_eq!(reader.next_packet(), Ok(None));
                    break;
                }
            }
        }
        assert!(captured <= bytes.len());
    }
    let config = Config::default();
    for words in [&[][..], &["--local", "192.0.2.1", "--answer-within", "0s"]] {
        let report = report_on(&[bytes], words, &config);
        assert_eq!(report, report_on(&[bytes], words, &config));
    }
});

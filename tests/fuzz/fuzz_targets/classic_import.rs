//! Any configuration, init script's settings and ignore file of PortSentry 1.2 or 2.x: a file that
//! parses and warnings, or findings that can be shown.
//!
//! Give the files of `tests/classic` as further corpus directories. A line of `%%` parts the three
//! files.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use portsentry::config::classic::{Modes, Request, Source, import};
use portsentry::config::{self, Finding, Severity};

const MARK: &[u8] = b"\n%%\n";

/// The parts of an input; what is missing is empty.
fn parts(bytes: &[u8]) -> [&[u8]; 3] {
    let split = |bytes: &'_ [u8]| bytes.windows(MARK.len()).position(|window| window == MARK);
    let mut rest = bytes;
    let mut next = || match split(rest) {
        Some(at) => {
            let part = &rest[..at + 1];
            rest = &rest[at + MARK.len()..];
            part
        }
        None => std::mem::take(&mut rest),
    };
    [next(), next(), next()]
}

fn assert_shown(findings: &[Finding]) {
    for finding in findings {
        let shown = finding.to_string();
        assert!(
            shown.len() < 8000 && !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown:?}"
        );
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{shown}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (modes, bytes) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
    let [config, defaults, ignored] = parts(bytes);
    let source =
        |name: &str, bytes: &[u8]| Source { name: PathBuf::from(name), bytes: bytes.to_vec() };
    let (config, defaults, ignored) = (
        source("portsentry.conf", config),
        source("default", defaults),
        source("portsentry.ignore", ignored),
    );
    let words = ["", "tcp", "stcp", "atcp", "udp", "sudp", "audp", "stealth"];
    let request = Request {
        config: &config,
        defaults: (modes & 0x80 != 0).then_some(&defaults),
        modes: Modes::of_word(words[usize::from(modes) % words.len()]).unwrap_or_default(),
        ignore: &|_| match modes >> 4 & 3 {
            0 => Ok(Vec::new()),
            1 => Err("permission denied".to_owned()),
            _ => Ok(vec![ignored.clone()]),
        },
    };
    match import(&request) {
        Ok(translated) => {
            assert!(
                translated.findings.iter().all(|finding| finding.severity == Severity::Warning)
            );
            assert_shown(&translated.findings);
            let loaded = config::parse(&translated.yaml, "translated")
                .unwrap_or_else(|refused| panic!("{refused}\n{}", translated.yaml));
            assert_shown(&loaded.warnings);
        }
        Err(refused) => {
            assert!(refused.findings.iter().any(|finding| finding.severity == Severity::Error));
            assert_shown(&refused.findings);
        }
    }
});

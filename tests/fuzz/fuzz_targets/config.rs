//! Any file: a configuration that prints as itself, or findings that can be shown.
//!
//! Give the files of `tests/configuration` and `contrib` as further corpus directories: the keys
//! cannot be guessed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::config::{self, Severity};

fuzz_target!(|text: &str| {
    let findings = match config::parse(text, "x") {
        Ok(loaded) => {
            let printed = loaded.config.to_yaml();
            match config::parse(&printed, "printed") {
                Ok(again) => assert_eq!(again.config, loaded.config, "{printed}"),
                Err(refused) => panic!("{refused}\n{printed}"),
            }
            assert!(loaded.warnings.iter().all(|finding| finding.severity == Severity::Warning));
            loaded.warnings
        }
        Err(refused) => {
            assert!(refused.findings.iter().any(|finding| finding.severity == Severity::Error));
            refused.findings
        }
    };
    for finding in findings {
        let shown = finding.to_string();
        assert!(
            shown.len() < 4000 && !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown:?}"
        );
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{shown}");
    }
});

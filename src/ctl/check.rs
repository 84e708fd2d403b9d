//! `portsentryctl check`: checks the configuration as the daemon would, without the daemon.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::failure::Failure;
use super::status;
use crate::config::{self, DEFAULT_PATH, Loaded};
use crate::journal::format::{printable, printable_json, printable_lines};

/// Checks `file`, or the daemon's own, and prints the findings.
pub(super) fn run(file: Option<&Path>, as_json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let result = match file {
        Some(file) => config::load(file),
        None => config::load_default(),
    };
    let name = file.unwrap_or(Path::new(DEFAULT_PATH));
    let shown = name.to_string_lossy();
    match result {
        Ok(Loaded { warnings, from, .. }) => {
            let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            if as_json {
                let document = json!({"ok": true, "file": from.map(|file| file.to_string_lossy().into_owned()), "findings": warnings});
                writeln!(out, "{}", printable_json(&format!("{document:#}")))?;
                return Ok(status::DONE);
            }
            for warning in &warnings {
                writeln!(out, "{}", printable_lines(warning))?;
            }
            match from {
                Some(_) => writeln!(out, "{} is good.", printable(&shown))?,
                None => writeln!(
                    out,
                    "There is no {}: the daemon runs with its built-in defaults.",
                    printable(&shown)
                )?,
            }
            Ok(status::DONE)
        }
        Err(refused) => {
            if as_json {
                let findings: Vec<String> =
                    refused.findings.iter().map(ToString::to_string).collect();
                let document = json!({"ok": false, "file": shown, "findings": findings});
                writeln!(out, "{}", printable_json(&format!("{document:#}")))?;
                return Ok(status::CONFIGURATION);
            }
            Err(Failure::Configuration(refused.to_string()))
        }
    }
}

//! `portsentryctl check`: checks the configuration as the daemon would, and what its unit refuses,
//! without the daemon.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::failure::Failure;
use super::run::document;
use super::status;
use crate::config::{self, DEFAULT_PATH, Finding, Loaded, Refused, Unit};
use crate::daemon::interfaces;
use crate::journal::format::{printable, printable_lines};

/// Checks `file`, or the daemon's own, and prints the findings.
pub(super) fn run(file: Option<&Path>, as_json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let result = config::load_under(file, &Unit::of_system()).map(|mut loaded| {
        interfaces::check(&mut loaded);
        loaded
    });
    let shown = file.unwrap_or(Path::new(DEFAULT_PATH)).to_string_lossy();
    let texts = |findings: &[Finding]| -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    };
    match result {
        Ok(Loaded { warnings, from, .. }) if as_json => {
            let from = from.map(|file| file.to_string_lossy().into_owned());
            document(out, &json!({"ok": true, "file": from, "findings": texts(&warnings)}))?;
        }
        Ok(Loaded { warnings, from, .. }) => {
            for warning in texts(&warnings) {
                writeln!(out, "{}", printable_lines(&warning))?;
            }
            let shown = printable(&shown);
            match from {
                Some(_) => writeln!(out, "{shown} is good.")?,
                None => writeln!(
                    out,
                    "There is no {shown}: the daemon runs with its built-in defaults."
                )?,
            }
        }
        Err(Refused { findings }) if as_json => {
            document(out, &json!({"ok": false, "file": shown, "findings": texts(&findings)}))?;
            return Ok(status::CONFIGURATION);
        }
        Err(refused) => return Err(Failure::Configuration(refused.to_string())),
    }
    Ok(status::DONE)
}

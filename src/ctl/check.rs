//! `portsentryctl check`: checks the configuration as the daemon would, and what its unit refuses. The
//! daemon is asked for nothing but the name of its file.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::diagnostics::diagnostics;
use super::failure::Failure;
use super::run::{document, status_of};
use super::{geo, status};
use crate::config::{self, DEFAULT_PATH, Finding, Loaded, Refused, Unit};
use crate::daemon::{allowed_names, interfaces};
use crate::journal::format::{printable, printable_lines};

/// Checks `file`, or the one that the daemon at `socket` reads, and prints the findings. Without a
/// daemon it is the file that one would read.
pub(super) fn run(
    file: Option<&Path>,
    socket: &Path,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let of_daemon = || status_of(socket).ok()?.config.map(PathBuf::from);
    let running = if file.is_none() { of_daemon() } else { None };
    let file = file.or(running.as_deref());
    let result = config::load_under(file, &Unit::of_system()).map(|mut loaded| {
        interfaces::check(&mut loaded);
        allowed_names::check(&mut loaded);
        geo::check(&mut loaded);
        loaded
    });
    let shown = file.unwrap_or(Path::new(DEFAULT_PATH)).to_string_lossy();
    let texts = |findings: &[Finding]| -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    };
    match result {
        Ok(Loaded { warnings, from, replaced, .. }) if as_json => {
            let from = from.map(|file| file.to_string_lossy().into_owned());
            let remarks = diagnostics(&warnings);
            document(
                out,
                &json!({
                    "ok": true, "file": from, "findings": texts(&warnings), "diagnostics": remarks, "replaced": replaced
                }),
            )?;
        }
        Ok(loaded) => {
            for warning in texts(&loaded.warnings) {
                writeln!(out, "{}", printable_lines(&warning))?;
            }
            for replaced in &loaded.replaced {
                writeln!(out, "{}", printable(replaced))?;
            }
            writeln!(out, "{}: good", printable(&loaded.source()))?;
        }
        Err(Refused { findings }) if as_json => {
            let faults = diagnostics(&findings);
            document(
                out,
                &json!({"ok": false, "file": shown, "findings": texts(&findings), "diagnostics": faults, "replaced": []}),
            )?;
            return Ok(status::CONFIGURATION);
        }
        Err(refused) => return Err(Failure::Configuration(refused.to_string())),
    }
    Ok(status::DONE)
}

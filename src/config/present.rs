//! Checks whether the files exist that responses need: a program that is not there is found out by the
//! first scan otherwise.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::diagnostic::{escaped, shown};
use super::reader::Reader;
use super::{Config, notify, written};

/// Notes what the responses of a configuration lack on this host.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    program(config, reader);
    notify::check_files(config, reader);
    let deny = &config.respond.hosts_deny;
    let keys = ["respond.hosts_deny.path", "respond.hosts_deny.enabled"];
    if deny.enabled
        && reader.is_sound(&keys)
        && let Some(directory) = deny.path.parent().filter(|directory| !directory.is_dir())
    {
        let directory = escaped(&directory.to_string_lossy());
        reader.warning(
            &keys,
            format!("there is no directory {directory}: no line can be written into hosts.deny"),
            "make it, or write the right path as respond.hosts_deny.path",
        );
    }
}

fn program(config: &Config, reader: &mut Reader<'_>) {
    const KEY: &str = "respond.command";
    let Some(program) = config.respond.command.first() else { return };
    if !reader.is_sound(&[KEY]) {
        return;
    }
    let name = shown(program);
    let (message, remedy) = match fs::metadata(program) {
        Ok(facts) if facts.is_file() && facts.permissions().mode() & 0o111 != 0 => return,
        Ok(facts) if facts.is_file() => {
            (format!("the program {name} is not executable"), format!("chmod a+x {name}"))
        }
        Ok(_) => (format!("{name} is no program"), "name a file that can be executed".to_owned()),
        Err(_) if is_split(program) => (
            format!("there is no program {name}"),
            format!(
                "write each word as a text of its own, no shell splits them: {}",
                shown(&written::list(program.split_whitespace()))
            ),
        ),
        Err(error) => (
            format!("the program {name} cannot be run: {}", system_message(&error)),
            "install it, or write the right path; \"portsentryctl test-response\" runs it once"
                .to_owned(),
        ),
    };
    reader.warning(&[KEY], message, remedy);
}

/// Whether a text is a program with its arguments rather than a path.
fn is_split(program: &str) -> bool {
    program
        .split_whitespace()
        .next()
        .is_some_and(|word| word != program && Path::new(word).exists())
}

/// The system's words, without its number.
fn system_message(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

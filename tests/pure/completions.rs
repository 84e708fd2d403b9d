//! contrib/completions: what the shells complete is the programs' own table of commands.
//!
//! `PORTSENTRY_BLESS=1 cargo test --test pure completions` writes them again.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// What `shell` completes for the program of that name.
fn completions(shell: Shell, name: &str) -> String {
    let mut command = match name {
        "portsentryctl" => portsentry::ctl::Arguments::command(),
        _ => portsentry::daemon::options::Options::command()
            .subcommand(portsentry::replay::options::Options::command().name("replay")),
    };
    let mut text = Vec::new();
    generate(shell, &mut command, name, &mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn completions_of_every_shell_are_those_of_the_command_line() {
    for name in ["portsentry", "portsentryctl"] {
        for (shell, file) in [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/completions").join(&file);
            let wanted = completions(shell, name);
            if std::env::var_os("PORTSENTRY_BLESS").is_some() {
                fs::write(&path, &wanted).unwrap();
            }
            assert!(
                fs::read_to_string(&path).unwrap_or_default() == wanted,
                "{file}: write it again with PORTSENTRY_BLESS=1"
            );
        }
    }
}

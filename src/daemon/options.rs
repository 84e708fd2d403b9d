//! The daemon's command line.
//!
//! PortSentry 1.x took its mode as one word with a single dash (`-atcp`). Those words go on
//! working: they are told apart before the parser, which knows only long options with two dashes,
//! sees the rest.

use std::path::PathBuf;

use clap::Parser;

use crate::config::{ClassicMode, Config, PortMode};

/// Notices port scans of this host and stops their sources by an nftables set.
///
/// Runs in the foreground. SIGHUP reads the configuration again, SIGUSR1 logs the status, SIGTERM
/// ends; blocks stay in the kernel.
#[derive(Debug, Clone, Parser)]
#[command(name = "portsentry", version, after_help = CLASSIC_HELP)]
pub struct Options {
    /// The configuration file [default: /etc/portsentry/portsentry.yaml; built-in defaults if that
    /// is missing]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, show every finding, and end: 0 if it is good, 78 if not
    #[arg(long)]
    pub check: bool,
    /// Print the configuration in force, defaults included, and end
    #[arg(long, conflicts_with = "check")]
    pub print_config: bool,
    /// Print the nftables ruleset that this configuration gives, and end
    #[arg(long, conflicts_with_all = ["check", "print_config"])]
    pub print_rules: bool,
    /// The classic mode words that were given.
    #[arg(skip)]
    pub classic: Vec<ClassicMode>,
}

const CLASSIC_HELP: &str = "Classic modes, one word a protocol; a protocol without a word is off:
  -tcp, -stcp, -atcp   connect, stealth, advanced mode for TCP
  -udp, -sudp, -audp   the same for UDP

Capture files: portsentry replay FILE...; see portsentry replay --help

Exit status: 0 done, 64 usage, 69 the kernel lacks something, 70 software, 77 not permitted, 78 configuration";

impl Options {
    /// Reads the command line, the program's name first.
    ///
    /// # Errors
    /// What clap says of it; `--help` and `--version` are such "errors" too.
    pub fn parse_words<I: IntoIterator<Item = std::ffi::OsString>>(
        words: I,
    ) -> Result<Self, clap::Error> {
        let mut classic = Vec::new();
        let mut rest = Vec::new();
        for word in words {
            match word
                .to_str()
                .and_then(|word| word.strip_prefix('-'))
                .and_then(ClassicMode::of_word)
            {
                Some(mode) => classic.push(mode),
                None => rest.push(word),
            }
        }
        if [false, true]
            .iter()
            .any(|udp| classic.iter().filter(|mode| mode.is_udp() == *udp).count() > 1)
        {
            return Err(<Self as clap::CommandFactory>::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                "two classic modes for one protocol; give one of -tcp -stcp -atcp and one of -udp -sudp -audp",
            ));
        }
        Ok(Self { classic, ..Self::try_parse_from(rest)? })
    }

    /// Lays the classic mode words over a configuration: as the old program ran, a protocol without
    /// a word is off.
    pub fn apply_classic(&self, config: &mut Config) {
        if self.classic.is_empty() {
            return;
        }
        config.tcp.mode = PortMode::Off;
        config.udp.mode = PortMode::Off;
        for mode in &self.classic {
            let protocol = if mode.is_udp() { &mut config.udp } else { &mut config.tcp };
            protocol.mode = mode.port_mode();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        Options::parse_words(
            std::iter::once("portsentry").chain(words.iter().copied()).map(Into::into),
        )
    }

    #[test]
    fn a_classic_word_selects_its_protocol_and_turns_the_other_off() {
        let mut config = Config::default();
        parse(&["-stcp"]).unwrap().apply_classic(&mut config);
        assert_eq!((config.tcp.mode, config.udp.mode), (PortMode::Stealth, PortMode::Off));
    }

    #[test]
    fn both_protocols_run_in_one_process() {
        let mut config = Config::default();
        parse(&["-atcp", "--config", "x.yaml", "-sudp"]).unwrap().apply_classic(&mut config);
        assert_eq!((config.tcp.mode, config.udp.mode), (PortMode::Advanced, PortMode::Stealth));
    }

    #[test]
    fn two_words_for_one_protocol_are_a_usage_error() {
        assert!(parse(&["-stcp", "-atcp"]).is_err());
    }

    #[test]
    fn without_a_word_the_file_decides() {
        let mut config = Config::default();
        parse(&[]).unwrap().apply_classic(&mut config);
        assert_eq!(config, Config::default());
    }
}

//! Import of PortSentry 1.2 and 2.x files: translation into an equivalent YAML configuration.
//!
//! ```text
//!  portsentry.conf, /etc/default/portsentry --parse--> entries --translate--> text of a YAML file
//!  ignore file ------------------------------ignore--> networks ----^             |
//!                                                        Finding <----------------+
//! ```
//!
//! Nothing is dropped silently: a setting without an equivalent is a finding, and is listed at the
//! head of the new file. Nothing is guessed: a damaged line is refused, however the old programs
//! read it. Pure: the caller reads and writes files.

pub mod ignore;
mod keys;
mod mode;
mod parse;
mod shell;
mod translate;
mod values;
mod write;

use std::path::{Path, PathBuf};

use super::diagnostic::{Finding, Findings, Severity};
use super::{PortMode, Refused};
use parse::{Edition, config, defaults, lines_of, text_of};
use translate::{DIFFERENCES, Translator};

pub(super) use keys::KEYS;
pub use mode::ClassicMode;

/// The settings of init scripts: Debian's, Gentoo's, PLD's.
pub const DEFAULT_MODES: &[&str] =
    &["/etc/default/portsentry", "/etc/conf.d/portsentry", "/etc/sysconfig/portsentry"];

/// The modes in RPM packages, beside the configuration.
pub const MODES_FILE: &str = "portsentry.modes";

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Path of the file.
    pub name: PathBuf,
    /// Content of the file.
    pub bytes: Vec<u8>,
}

/// The modes in which the old program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    /// Of TCP.
    pub tcp: Option<PortMode>,
    /// Of UDP.
    pub udp: Option<PortMode>,
}

impl Modes {
    /// The modes that a word of the old command lines selects; leading dashes are allowed.
    pub fn of_word(word: &str) -> Option<Self> {
        let modes = |tcp, udp| Some(Self { tcp, udp });
        match word.trim_start_matches('-') {
            // 2.x has two words that set both protocols.
            "connect" => modes(Some(PortMode::Connect), Some(PortMode::Connect)),
            "stealth" => modes(Some(PortMode::Stealth), Some(PortMode::Stealth)),
            word => match ClassicMode::of_word(word)? {
                mode if mode.is_udp() => modes(None, Some(mode.port_mode())),
                mode => modes(Some(mode.port_mode()), None),
            },
        }
    }

    /// These modes, with missing ones from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { tcp: self.tcp.or(other.tcp), udp: self.udp.or(other.udp) }
    }
}

/// The ignore file and others that belong to it, or why they cannot be read.
pub type Ignore = Result<Vec<Source>, String>;

/// The files and settings to translate.
pub struct Request<'r> {
    /// The configuration file.
    pub config: &'r Source,
    /// The settings of the init script, if there are any.
    pub defaults: Option<&'r Source>,
    /// Modes given on the command line; they override those of `defaults`.
    pub modes: Modes,
    /// Reads the ignore file that the configuration names; empty: there is none. An error stops the
    /// import: an unreadable file may name hosts that must not be blocked.
    pub ignore: &'r dyn Fn(&Path) -> Ignore,
}

/// A translated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The text of the new file.
    pub yaml: String,
    /// Settings that were dropped or changed; warnings only.
    pub findings: Vec<Finding>,
}

/// Translates a configuration.
///
/// # Errors
/// All damage in any of the files, with all warnings.
pub fn import(request: &Request<'_>) -> Result<Import, Refused> {
    let text = text_of(&request.config.bytes);
    let lines = lines_of(&text);
    let mut findings = Findings::of_lines(&request.config.name, lines.clone());

    let defaults_text = request.defaults.map(|source| text_of(&source.bytes)).unwrap_or_default();
    let defaults_lines = lines_of(&defaults_text);
    let defaults_name = request.defaults.map_or(Path::new(""), |source| &source.name);
    let mut defaults_findings = Findings::of_lines(defaults_name, defaults_lines.clone());
    let settings = defaults(&defaults_lines, &mut defaults_findings);
    let edition = if settings.is_1_2() { Edition::One } else { Edition::of(&lines) };
    let entries = config(&lines, edition, &mut findings);

    let old = translate::Old { edition, entries: &entries, settings: &settings };
    let Translator { document, findings, ignored, sources, .. } =
        Translator::run(request, old, findings, &mut defaults_findings);
    let mut all = findings.finish();
    all.extend(defaults_findings.finish());
    all.extend(ignored);
    if all.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Refused { findings: all });
    }
    let mut names: Vec<&Path> = vec![&request.config.name];
    names.extend(request.defaults.map(|source| source.name.as_path()));
    names.extend(sources.iter().map(PathBuf::as_path));
    let line_of = |finding: &Finding| {
        let lines = if finding.file == request.config.name { &lines } else { &defaults_lines };
        let known = finding.file == request.config.name || finding.file == defaults_name;
        let at = usize::try_from(finding.line).ok()?.checked_sub(1)?;
        lines.get(at).copied().filter(|_| known)
    };
    let yaml = document.text(&names, &all, &line_of, DIFFERENCES);
    // Values that are each right can contradict each other: two keys may name the same file. Report
    // it before writing.
    if let Err(refused) = super::parse(&yaml, "the translation") {
        all.extend(refused.findings);
        return Err(Refused { findings: all });
    }
    Ok(Import { yaml, findings: all })
}

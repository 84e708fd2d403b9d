//! Files of PortSentry 1.2 and 2.x: what they mean, and a configuration that means the same.
//!
//! ```text
//!  portsentry.conf, /etc/default/portsentry --parse--> entries --translate--> text of a YAML file
//!  ignore file ------------------------------ignore--> networks ----^             |
//!                                                        Finding <----------------+
//! ```
//!
//! Nothing is dropped silently: what has no equivalent is a finding, and stands in the head of the new file. Nothing is guessed either: a damaged
//! line is refused, whatever the old programs made of it. Pure: who calls reads the files, and writes the new one.

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
use parse::{config, defaults, lines_of, text_of};

pub use mode::ClassicMode;

/// Where the init script's settings stand on Debian.
pub const DEFAULT_MODES: &str = "/etc/default/portsentry";

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The modes that the old program was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    /// Of TCP.
    pub tcp: Option<PortMode>,
    /// Of UDP.
    pub udp: Option<PortMode>,
}

impl Modes {
    /// What a word of the old command lines selects; dashes before it are allowed.
    pub fn of_word(word: &str) -> Option<Self> {
        // 2.x has two that are for both protocols.
        let both = |mode| Self { tcp: Some(mode), udp: Some(mode) };
        match word.trim_start_matches('-') {
            "connect" => Some(both(PortMode::Connect)),
            "stealth" => Some(both(PortMode::Stealth)),
            word => ClassicMode::of_word(word).map(Self::from),
        }
    }

    /// These modes and, where they say nothing, the others.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { tcp: self.tcp.or(other.tcp), udp: self.udp.or(other.udp) }
    }
}

impl From<ClassicMode> for Modes {
    fn from(mode: ClassicMode) -> Self {
        let watched = Some(mode.port_mode());
        if mode.is_udp() { Self { tcp: None, udp: watched } } else { Self { tcp: watched, udp: None } }
    }
}

/// What looking for the ignore file gave: the file, and others that belong to it.
pub type Ignore = Result<Vec<Source>, String>;

/// What is to be translated.
pub struct Request<'r> {
    /// The configuration file.
    pub config: &'r Source,
    /// `/etc/default/portsentry`, if there is one.
    pub defaults: Option<&'r Source>,
    /// Modes that were given by hand; they go before those of `defaults`.
    pub modes: Modes,
    /// Reads the ignore file that the configuration names; empty: there is none. An error, in words, stops the import: what cannot be read may
    /// name somebody who must not be blocked.
    pub ignore: &'r dyn Fn(&Path) -> Ignore,
}

/// A translated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The new file.
    pub yaml: String,
    /// What was not taken over, or not as it stands; warnings only.
    pub findings: Vec<Finding>,
}

/// Translates.
///
/// # Errors
/// Everything that is damaged in any of the files, and every warning beside it.
pub fn import(request: &Request<'_>) -> Result<Import, Refused> {
    let text = text_of(&request.config.bytes);
    let lines = lines_of(&text);
    let mut findings = Findings::of_lines(&request.config.name, lines.clone());
    let entries = config(&lines, &mut findings);

    let defaults_text = request.defaults.map(|source| text_of(&source.bytes)).unwrap_or_default();
    let defaults_lines = lines_of(&defaults_text);
    let defaults_name = request.defaults.map_or(Path::new(""), |source| &source.name);
    let mut defaults_findings = Findings::of_lines(defaults_name, defaults_lines.clone());
    let default_entries = defaults(&defaults_lines, &mut defaults_findings);

    let mut translator = translate::Translator::new(request, &entries, findings);
    translator.modes(&default_entries, &mut defaults_findings);
    translator.ports();
    translator.ignore();
    translator.respond();
    translator.rest();
    let translate::Translated { document, findings, ignored, sources } = translator.finish();
    let mut all = findings;
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
    let yaml = document.text(&names, &all, &line_of, translate::DIFFERENCES);
    // Values that are each right can contradict each other: two keys may name the same file. That is told before anything is written.
    if let Err(refused) = super::parse(&yaml, "the translation") {
        all.extend(refused.findings);
        return Err(Refused { findings: all });
    }
    Ok(Import { yaml, findings: all })
}

//! Keywords: values of the file that are one of a few. One table for each type serves to read,
//! print and list them.

use super::{
    CampaignAction, ClosedPorts, CommandOn, CommandWhen, Facility, LogFormat, LogTarget, Method,
    Mode, NotifyOn, OnExit, OwnTable, PortMode, ProtocolAction, UnprovenAction, Unwatched,
};

/// Keywords with their values.
type Keywords<T> = &'static [(&'static str, T)];

/// A type whose values are keywords.
pub trait Keyword: Copy + PartialEq + 'static {
    /// Every keyword with its value, one for each.
    const KEYWORDS: Keywords<Self>;

    /// The keyword of this value.
    fn word(self) -> &'static str {
        Self::KEYWORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// The value of a keyword; case-sensitive.
    fn of_word(word: &str) -> Option<Self> {
        Self::KEYWORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }
}

/// The keywords of a type, for the table of keys.
pub(super) fn keywords<T: Keyword>() -> Vec<&'static str> {
    T::KEYWORDS.iter().map(|(word, _)| *word).collect()
}

impl Keyword for Mode {
    const KEYWORDS: Keywords<Self> = &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

impl Keyword for ClosedPorts {
    const KEYWORDS: Keywords<Self> =
        &[("drop", Self::Drop), ("answer", Self::Answer), ("pass", Self::Pass)];
}

impl Keyword for Unwatched {
    const KEYWORDS: Keywords<Self> =
        &[("report", Self::Report), ("slow", Self::Slow), ("ignore", Self::Ignore)];
}

impl Keyword for Method {
    const KEYWORDS: Keywords<Self> = &[("nflog", Self::Nflog), ("nfqueue", Self::Nfqueue)];
}

impl Keyword for PortMode {
    const KEYWORDS: Keywords<Self> = &[
        ("off", Self::Off),
        ("connect", Self::Connect),
        ("stealth", Self::Stealth),
        ("advanced", Self::Advanced),
    ];
}

impl Keyword for ProtocolAction {
    const KEYWORDS: Keywords<Self> =
        &[("block", Self::Block), ("command", Self::Command), ("log", Self::Log)];
}

impl Keyword for UnprovenAction {
    const KEYWORDS: Keywords<Self> =
        &[("block", Self::Block), ("slow", Self::Slow), ("report", Self::Report)];
}

impl Keyword for CampaignAction {
    const KEYWORDS: Keywords<Self> =
        &[("report", Self::Report), ("slow", Self::Slow), ("block", Self::Block)];
}

impl Keyword for CommandOn {
    const KEYWORDS: Keywords<Self> = &[("slowed", Self::Slowed), ("blocked", Self::Blocked)];
}

impl Keyword for NotifyOn {
    const KEYWORDS: Keywords<Self> = &[
        ("reported", Self::Reported),
        ("slowed", Self::Slowed),
        ("blocked", Self::Blocked),
        ("trouble", Self::Trouble),
    ];
}

impl Keyword for CommandWhen {
    const KEYWORDS: Keywords<Self> = &[("before", Self::Before), ("after", Self::After)];
}

impl Keyword for LogTarget {
    const KEYWORDS: Keywords<Self> = &[
        ("auto", Self::Auto),
        ("stderr", Self::Stderr),
        ("journal", Self::Journal),
        ("syslog", Self::Syslog),
    ];
}

impl Keyword for LogFormat {
    const KEYWORDS: Keywords<Self> =
        &[("classic", Self::Classic), ("text", Self::Text), ("json", Self::Json)];
}

impl Keyword for log::LevelFilter {
    const KEYWORDS: Keywords<Self> = &[
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Keyword for Facility {
    const KEYWORDS: Keywords<Self> = &[
        ("user", Self::User),
        ("daemon", Self::Daemon),
        ("auth", Self::Auth),
        ("authpriv", Self::Authpriv),
        ("local0", Self::Local0),
        ("local1", Self::Local1),
        ("local2", Self::Local2),
        ("local3", Self::Local3),
        ("local4", Self::Local4),
        ("local5", Self::Local5),
        ("local6", Self::Local6),
        ("local7", Self::Local7),
    ];
}

impl Keyword for OnExit {
    const KEYWORDS: Keywords<Self> = &[("keep", Self::Keep), ("remove", Self::Remove)];
}

impl Keyword for OwnTable {
    const KEYWORDS: Keywords<Self> =
        &[("auto", Self::Auto), ("true", Self::Yes), ("false", Self::No)];
}

//! The words of the file for values that are one of a few: read, printed and listed from one table each.

use super::{ClosedPorts, CommandWhen, Facility, LogFormat, LogTarget, Method, Mode, OnExit, OwnTable, PortMode, ProtocolAction, UnprovenAction};

/// A value that is written as one of a few words.
pub trait Words: Copy + PartialEq + 'static {
    /// Every word with its value. Each value has one word.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// The value of `word`; words are case-sensitive.
    fn of_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }
}

/// The words of a type, for the table of keys.
pub(super) fn words<T: Words>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

impl Words for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

impl Words for ClosedPorts {
    const WORDS: &'static [(&'static str, Self)] = &[("drop", Self::Drop), ("answer", Self::Answer)];
}

impl Words for Method {
    const WORDS: &'static [(&'static str, Self)] = &[("nflog", Self::Nflog), ("nfqueue", Self::Nfqueue)];
}

impl Words for PortMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("connect", Self::Connect), ("stealth", Self::Stealth), ("advanced", Self::Advanced)];
}

impl Words for ProtocolAction {
    const WORDS: &'static [(&'static str, Self)] = &[("block", Self::Block), ("command", Self::Command), ("log", Self::Log)];
}

impl Words for UnprovenAction {
    const WORDS: &'static [(&'static str, Self)] = &[("block", Self::Block), ("slow", Self::Slow), ("report", Self::Report)];
}

impl Words for CommandWhen {
    const WORDS: &'static [(&'static str, Self)] = &[("before", Self::Before), ("after", Self::After)];
}

impl Words for LogTarget {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("stderr", Self::Stderr), ("journal", Self::Journal), ("syslog", Self::Syslog)];
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("classic", Self::Classic), ("text", Self::Text), ("json", Self::Json)];
}

impl Words for log::LevelFilter {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("error", Self::Error), ("warn", Self::Warn), ("info", Self::Info), ("debug", Self::Debug), ("trace", Self::Trace)];
}

impl Words for Facility {
    const WORDS: &'static [(&'static str, Self)] = &[
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

impl Words for OnExit {
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("remove", Self::Remove)];
}

impl Words for OwnTable {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("true", Self::Yes), ("false", Self::No)];
}

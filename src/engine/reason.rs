//! Why something is blocked, as it is written into the element's comment and read back from there.

use std::fmt;
use std::str::FromStr;

use crate::probe::ScanKind;

/// Why a source or network is blocked.
///
/// `Display` gives the text that stands in the element's comment, the log, the history and `portsentryctl list`; `FromStr` reads it back,
/// so that a daemon which starts again knows why the kernel's elements are there. nft limits a comment to 128 bytes (nft(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It scanned.
    Scan {
        /// The kind of the probe that crossed the trigger.
        scan: ScanKind,
        /// The source has shown that it receives our packets.
        proven: bool,
        /// What it did, in words: `3 ports in 0.2s: tcp/1 tcp/2 tcp/3`.
        detail: String,
    },
    /// The administrator said so; the text is the administrator's, or empty.
    Manual(String),
    /// An element that somebody else put into the set; the text is its comment.
    Foreign(String),
}

/// Longest comment, in bytes, that nft(8) reads and writes.
pub const COMMENT_MAX: usize = 128;

impl Reason {
    /// The scan kind, for blocks that follow from a scan.
    pub fn scan(&self) -> Option<ScanKind> {
        match self {
            Self::Scan { scan, .. } => Some(*scan),
            Self::Manual(_) | Self::Foreign(_) => None,
        }
    }

    /// Whether the source is proven; a block that the administrator ordered needs no proof.
    pub fn proven(&self) -> bool {
        match self {
            Self::Scan { proven, .. } => *proven,
            Self::Manual(_) => true,
            Self::Foreign(_) => false,
        }
    }

    /// The text cut to what an element's comment holds, at a character boundary, without control characters.
    pub fn comment(&self) -> String {
        use fmt::Write as _;
        // After a flush ten thousand are written in a hurry: one allocation each, and nothing looked at twice.
        let mut text = String::with_capacity(COMMENT_MAX);
        // Writing into a String does not fail.
        let _ = write!(text, "{self}");
        if text.chars().any(char::is_control) {
            text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        }
        while text.len() >= COMMENT_MAX {
            text.pop();
        }
        text
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan { scan, proven, detail } => {
                write!(f, "{scan} scan{}: {detail}", if *proven { ", proven" } else { "" })
            }
            Self::Manual(text) if text.is_empty() => f.write_str("by hand"),
            Self::Manual(text) => write!(f, "by hand: {text}"),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

impl FromStr for Reason {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "by hand" {
            return Ok(Self::Manual(String::new()));
        }
        if let Some(rest) = text.strip_prefix("by hand: ") {
            return Ok(Self::Manual(rest.to_owned()));
        }
        if let Some((head, detail)) = text.split_once(": ") {
            let (kind, proven) = match head.strip_suffix(" scan, proven") {
                Some(kind) => (Some(kind), true),
                None => (head.strip_suffix(" scan"), false),
            };
            if let Some(scan) = kind.and_then(|kind| kind.parse().ok()) {
                return Ok(Self::Scan { scan, proven, detail: detail.to_owned() });
            }
        }
        Ok(Self::Foreign(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_comment() {
        let scan = Reason::Scan { scan: ScanKind::Xmas, proven: true, detail: "3 ports in 0.2s: tcp/1 tcp/2 tcp/3".into() };
        for reason in [scan, Reason::Manual(String::new()), Reason::Manual("abuse: ticket 7".into()), Reason::Foreign("mine".into())] {
            assert_eq!(reason.comment().parse::<Reason>().unwrap(), reason);
        }
    }

    #[test]
    fn a_comment_is_cut_where_a_character_ends_and_holds_no_control_character() {
        let comment = Reason::Manual("ä\n".repeat(100)).comment();
        assert!(comment.len() < COMMENT_MAX);
        assert!(!comment.contains('\n'));
    }
}

//! The reason of a block, as text for the element's comment and parsed from it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::detail::Detail;
use super::lists::{ListName, Listed};
use crate::probe::ScanKind;

/// Why a source or network is blocked.
///
/// `Display` gives the text of the element's comment, the log, the history and `portsentryctl
/// list`; `FromStr` parses it, so that a restarted daemon knows the reasons of present elements.
/// nft limits a comment to 128 bytes (nft(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It scanned.
    Scan {
        /// The kind of the probe that passed the trigger.
        scan: ScanKind,
        /// The source completed handshakes, so its address is not spoofed.
        proven: bool,
        /// What it did: `3 ports in 0.2s: tcp/1 tcp/2 tcp/3`.
        detail: Detail,
    },
    /// The administrator blocked it; the text is the administrator's, or empty.
    Manual(Box<str>),
    /// The administrator blocked the named list that it is on. All blocks of a list share it.
    Listed(Arc<Listed>),
    /// Another program added the element; the text is its comment.
    Foreign(Box<str>),
}

/// Longest comment that nft(8) reads and writes, bytes.
pub const COMMENT_MAX: usize = 128;

impl Reason {
    /// The scan kind, for blocks that follow from a scan.
    pub fn scan(&self) -> Option<ScanKind> {
        match self {
            Self::Scan { scan, .. } => Some(*scan),
            Self::Manual(_) | Self::Listed(_) | Self::Foreign(_) => None,
        }
    }

    /// Whether the source is proven; a manual block counts as proven.
    pub fn proven(&self) -> bool {
        match self {
            Self::Scan { proven, .. } => *proven,
            Self::Manual(_) | Self::Listed(_) => true,
            Self::Foreign(_) => false,
        }
    }

    /// Whether the administrator ordered it.
    pub fn is_order(&self) -> bool {
        matches!(self, Self::Manual(_) | Self::Listed(_))
    }

    /// The list that it is on.
    pub fn list(&self) -> Option<&ListName> {
        match self {
            Self::Listed(listed) => Some(listed.name()),
            Self::Scan { .. } | Self::Manual(_) | Self::Foreign(_) => None,
        }
    }

    /// Whether it is a scan of a source whose address may be forged.
    pub fn is_unproven_scan(&self) -> bool {
        matches!(self, Self::Scan { proven: false, .. })
    }

    /// The text without control characters, cut at a character boundary to fit a comment.
    pub fn comment(&self) -> String {
        use fmt::Write as _;
        // A million are written at once: one allocation each, which is not cut to size.
        let mut text = String::with_capacity(COMMENT_MAX / 2);
        // Writing into a String cannot fail.
        let _ = write!(text, "{self}");
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~');
        if !text.bytes().all(is_plain) {
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
            Self::Listed(listed) => write!(f, "by hand, {listed}"),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

impl FromStr for Reason {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "by hand" {
            return Ok(Self::Manual(Box::default()));
        }
        if let Some(rest) = text.strip_prefix("by hand: ") {
            return Ok(Self::Manual(rest.into()));
        }
        if let Some(rest) = text.strip_prefix("by hand, list ") {
            let (name, rest) = rest.split_once(": ").unwrap_or((rest, ""));
            if let Ok(name) = name.parse() {
                return Ok(Self::Listed(Arc::new(Listed::new(name, rest))));
            }
        }
        // No kind has a colon.
        if let Some((head, detail)) = text.split_once(':')
            && let Some(detail) = detail.strip_prefix(' ')
        {
            let (kind, proven) = match head.strip_suffix(" scan, proven") {
                Some(kind) => (Some(kind), true),
                None => (head.strip_suffix(" scan"), false),
            };
            if let Some(scan) = kind.and_then(|kind| kind.parse().ok()) {
                return Ok(Self::Scan { scan, proven, detail: detail.into() });
            }
        }
        Ok(Self::Foreign(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_parsed_back_from_its_comment() {
        let scan = Reason::Scan {
            scan: ScanKind::Xmas,
            proven: true,
            detail: "3 ports in 0.2s: tcp/1 tcp/2 tcp/3".into(),
        };
        for reason in [
            scan,
            Reason::Manual(Box::default()),
            Reason::Manual("abuse: ticket 7".into()),
            Reason::Listed(Arc::new(Listed::new("scanners-1".parse().unwrap(), ""))),
            Reason::Listed(Arc::new(Listed::new("a.b_c".parse().unwrap(), "ticket: 7"))),
            Reason::Foreign("mine".into()),
            Reason::Foreign("by hand, list of mine".into()),
        ] {
            assert_eq!(reason.comment().parse::<Reason>().unwrap(), reason);
        }
    }

    #[test]
    fn long_comment_is_cut_at_a_character_boundary() {
        let comment = Reason::Manual("ä\n".repeat(100).into()).comment();
        assert!(comment.len() < COMMENT_MAX);
        assert!(!comment.contains('\n'));
    }
}

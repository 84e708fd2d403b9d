//! What a terminal can show: its width, and colours unless NO_COLOR (no-color.org) asks for none.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::sys::terminal;

/// What standard output can show.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Screen {
    /// Columns; `None`: it is no terminal, and lines may be of any length.
    width: Option<usize>,
    colour: bool,
}

static SCREEN: OnceLock<Screen> = OnceLock::new();

/// Colours, by what they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// A header.
    Bold,
    /// Blocked, or wrong.
    Red,
    /// Slowed, or a warning.
    Yellow,
    /// As it should be.
    Green,
}

impl Screen {
    /// Looks at standard output; without a call the output is for no terminal.
    pub(super) fn look() {
        let is_terminal = io::stdout().is_terminal();
        let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let screen = Self {
            width: if is_terminal { terminal::columns(&io::stdout()) } else { None },
            colour: is_terminal && !has("NO_COLOR") && !is_dumb,
        };
        let _ = SCREEN.set(screen);
    }

    /// Of standard output.
    pub(super) fn current() -> Self {
        SCREEN.get().copied().unwrap_or_default()
    }

    /// Columns; `None`: lines may be of any length.
    pub(super) fn room(self) -> Option<usize> {
        self.width
    }

    /// Whether it may show colours.
    pub(super) fn has_colours(self) -> bool {
        self.colour
    }

    /// A text in a colour, where there are colours.
    pub(super) fn paint<'t>(self, colour: Colour, text: &'t str) -> Cow<'t, str> {
        if !self.colour {
            return Cow::Borrowed(text);
        }
        let code = match colour {
            Colour::Bold => 1,
            Colour::Red => 31,
            Colour::Yellow => 33,
            Colour::Green => 32,
        };
        Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m"))
    }

    /// The beginning of a line that the terminal has room for; an ellipsis stands for the rest.
    pub(super) fn fit<'t>(self, line: &'t str) -> Cow<'t, str> {
        match self.width {
            Some(width) => Cow::Owned(fit(line, width)),
            None => Cow::Borrowed(line),
        }
    }
}

/// Columns that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) { text.len() } else { text.width() }
}

/// The beginning of a text that takes so many columns; an ellipsis stands for the rest.
pub(super) fn fit(line: &str, room: usize) -> String {
    if width(line) <= room {
        return line.to_owned();
    }
    let mut used = 0;
    let kept = line.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        // The last column is the ellipsis'.
        used < room
    });
    let mut kept: String = kept.collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_the_terminal_ends_also_between_wide_characters() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 5), "abcd…");
        assert_eq!((width("漢字"), width("e\u{301}")), (4, 1));
        assert_eq!(fit("漢字漢字", 8), "漢字漢字");
        assert_eq!(fit("漢字漢字", 7), "漢字漢…");
        assert_eq!(fit("漢字漢字", 6), "漢字…");
        assert_eq!(fit("", 0), "");
    }

    #[test]
    fn without_a_terminal_nothing_is_coloured_or_cut() {
        let plain = Screen::default();
        assert_eq!(plain.paint(Colour::Red, "blocked"), "blocked");
        assert_eq!(plain.fit(&"x".repeat(1000)).len(), 1000);
        let colours = Screen { width: Some(80), colour: true };
        assert_eq!(colours.paint(Colour::Red, "blocked"), "\u{1b}[31mblocked\u{1b}[0m");
    }
}

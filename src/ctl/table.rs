//! Tables for people, with columns as wide as needed.

use std::borrow::Cow;
use std::io::{self, Write};

use super::screen::{Colour, Screen, width as columns};
use crate::journal::format::printable;

/// Rows that determine the width of the columns. A longer table is printed while it is read; a
/// wider cell further down pushes its row to the right.
const MEASURED: usize = 5000;

/// Alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table that is written row by row.
pub(super) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    /// The sentence that stands for a table without rows.
    empty: &'static str,
    waiting: Vec<[String; N]>,
    /// Columns that are left out where the terminal has no room for them.
    spare: &'static [usize],
    /// They are left out in any case.
    without: bool,
    /// Of columns that are left out: `None`.
    widths: Option<[Option<usize>; N]>,
}

/// Columns that the last cell of a row keeps beside those that could be left out.
const LAST_LEAST: usize = 20;

/// Blanks between two columns.
const GAP: usize = 2;

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [(&'static str, Align); N], empty: &'static str) -> Self {
        Self { columns, empty, waiting: Vec::new(), spare: &[], without: false, widths: None }
    }

    /// Leaves these columns out where the terminal has no room for them, or in any case.
    pub(super) fn spare(self, spare: &'static [usize], without: bool) -> Self {
        Self { spare, without, ..self }
    }

    /// Adds a row and escapes its cells.
    pub(super) fn row(&mut self, out: &mut dyn Write, cells: [String; N]) -> io::Result<()> {
        let cells = cells.map(|cell| {
            let escaped = match printable(&cell) {
                Cow::Owned(escaped) => Some(escaped),
                Cow::Borrowed(_) => None,
            };
            escaped.unwrap_or(cell)
        });
        match self.widths {
            Some(widths) => self.write(out, &widths, &cells),
            None => {
                self.waiting.push(cells);
                if self.waiting.len() >= MEASURED { self.begin(out) } else { Ok(()) }
            }
        }
    }

    /// Writes the pending rows.
    pub(super) fn end(mut self, out: &mut dyn Write) -> io::Result<()> {
        match self.widths {
            Some(_) => Ok(()),
            None if self.waiting.is_empty() => writeln!(out, "{}", self.empty),
            None => self.begin(out),
        }
    }

    fn begin(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let header = self.columns.map(|(name, _)| name.to_owned());
        let waiting = std::mem::take(&mut self.waiting);
        let mut widths = [0; N];
        for cells in waiting.iter().chain(std::iter::once(&header)) {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(columns(cell));
            }
        }
        let screen = Screen::current();
        let room = if self.without { Some(0) } else { screen.room() };
        let widths = kept(widths, self.spare, room);
        self.widths = Some(widths);
        let header = self.line(&widths, &header);
        writeln!(out, "{}", screen.paint(Colour::Bold, &screen.fit(&header)))?;
        waiting.iter().try_for_each(|cells| self.write(out, &widths, cells))
    }

    fn write(
        &self,
        out: &mut dyn Write,
        widths: &[Option<usize>; N],
        cells: &[String; N],
    ) -> io::Result<()> {
        let colour = cells.iter().find_map(|cell| match cell.as_str() {
            "blocked" => Some(Colour::Red),
            "slowed" => Some(Colour::Yellow),
            _ => None,
        });
        let (screen, line) = (Screen::current(), self.line(widths, cells));
        let line = screen.fit(&line);
        let line = colour.map_or(Cow::Borrowed(&*line), |colour| screen.paint(colour, &line));
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")
    }

    /// The line of a row.
    fn line(&self, widths: &[Option<usize>; N], cells: &[String; N]) -> String {
        let mut line =
            String::with_capacity(widths.iter().flatten().map(|width| width + GAP).sum());
        let mut blanks = 0;
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            let Some(width) = width else { continue };
            let room = width.saturating_sub(columns(cell));
            let (before, after) = if *align == Align::Left { (0, room) } else { (room, 0) };
            // Those at the end of the line are left out.
            if !cell.is_empty() {
                line.extend(std::iter::repeat_n(' ', blanks + before));
                line.push_str(cell);
                blanks = 0;
            } else {
                blanks += before;
            }
            blanks += after + GAP;
        }
        line
    }
}

/// The widths of the columns that are printed in this much room: all but the spare ones, and of those
/// the first that fit.
fn kept<const N: usize>(
    widths: [usize; N],
    spare: &[usize],
    room: Option<usize>,
) -> [Option<usize>; N] {
    let mut kept = widths.map(Some);
    let Some(room) = room else { return kept };
    let needed = |(at, width): (usize, &usize)| match at + 1 == N {
        true => (*width).min(LAST_LEAST),
        false => width + GAP,
    };
    let all: usize = widths.iter().enumerate().map(needed).sum();
    let mut excess = all.saturating_sub(room);
    for at in spare.iter().rev() {
        if excess > 0
            && let Some(width) = kept.get_mut(*at)
        {
            excess = excess.saturating_sub(width.take().map_or(0, |width| width + GAP));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_columns_are_left_out_from_the_last_where_there_is_no_room() {
        let widths = [10, 7, 30, 50];
        let shown = |room| kept(widths, &[1, 2], room).map(|width| width.is_some());
        assert_eq!(shown(None), [true; 4]);
        assert_eq!(shown(Some(73)), [true; 4]);
        assert_eq!(shown(Some(72)), [true, true, false, true]);
        assert_eq!(shown(Some(41)), [true, true, false, true]);
        assert_eq!(shown(Some(40)), [true, false, false, true]);
        assert_eq!(shown(Some(1)), [true, false, false, true]);
        assert_eq!(kept(widths, &[], Some(1)), widths.map(Some));
    }
}

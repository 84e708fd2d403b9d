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
    widths: Option<[usize; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [(&'static str, Align); N], empty: &'static str) -> Self {
        Self { columns, empty, waiting: Vec::new(), widths: None }
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
        self.widths = Some(widths);
        let screen = Screen::current();
        let header = self.line(&widths, &header);
        writeln!(out, "{}", screen.paint(Colour::Bold, &screen.fit(&header)))?;
        waiting.iter().try_for_each(|cells| self.write(out, &widths, cells))
    }

    fn write(
        &self,
        out: &mut dyn Write,
        widths: &[usize; N],
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
    fn line(&self, widths: &[usize; N], cells: &[String; N]) -> String {
        const GAP: usize = 2;
        let mut line = String::with_capacity(widths.iter().map(|width| width + GAP).sum());
        let mut blanks = 0;
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
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

//! Tables for people, with columns as wide as needed.

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
        let cells = cells.map(|cell| printable(&cell).into_owned());
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
        let header = Screen::current().paint(Colour::Bold, &self.line(&widths, &header));
        writeln!(out, "{header}")?;
        waiting.iter().try_for_each(|cells| self.write(out, &widths, cells))
    }

    fn write(
        &self,
        out: &mut dyn Write,
        widths: &[usize; N],
        cells: &[String; N],
    ) -> io::Result<()> {
        let line = self.line(widths, cells);
        let colour = cells.iter().find_map(|cell| match cell.as_str() {
            "blocked" => Some(Colour::Red),
            "slowed" => Some(Colour::Yellow),
            _ => None,
        });
        match colour {
            Some(colour) => writeln!(out, "{}", Screen::current().paint(colour, &line)),
            None => writeln!(out, "{line}"),
        }
    }

    /// The line of a row, as far as the terminal has room.
    fn line(&self, widths: &[usize; N], cells: &[String; N]) -> String {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            let room = " ".repeat(width.saturating_sub(columns(cell)));
            match align {
                Align::Left => line.extend([cell, room.as_str(), "  "]),
                Align::Right => line.extend([room.as_str(), cell, "  "]),
            }
        }
        Screen::current().fit(line.trim_end())
    }
}

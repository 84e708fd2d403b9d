//! The table, as text for a terminal and as Markdown.

use std::fmt::Write as _;

/// What was measured, or why not.
#[derive(Clone)]
pub enum Cell {
    /// The median, written out, and the number of runs.
    Median(String, usize),
    /// Why there is no figure.
    Without(String),
}

impl Cell {
    /// Whether something never came about, be it in one run.
    pub fn is_never(&self) -> bool {
        matches!(self, Self::Median(text, _) if text.contains("never") && !text.starts_with("never open"))
    }

    fn text(&self) -> String {
        match self {
            Self::Median(text, runs) => format!("{text} (n={runs})"),
            Self::Without(reason) => reason.clone(),
        }
    }
}

/// The median of some numbers: the lower of the two in the middle, so that it was measured.
pub fn median<T: PartialOrd + Copy>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Rows under columns, with the facts about the run above and the meaning of the columns below.
pub struct Table {
    pub facts: Vec<String>,
    pub columns: Vec<&'static str>,
    pub rows: Vec<(String, Vec<Cell>)>,
    pub notes: Vec<String>,
}

impl Table {
    fn cells(&self) -> Vec<Vec<String>> {
        let head = ["contestant"]
            .into_iter()
            .chain(self.columns.iter().copied())
            .map(str::to_owned)
            .collect();
        let rows = self.rows.iter().map(|(name, cells)| {
            [name.clone()].into_iter().chain(cells.iter().map(Cell::text)).collect()
        });
        [head].into_iter().chain(rows).collect()
    }

    /// For a terminal: columns in line.
    pub fn text(&self) -> String {
        let cells = self.cells();
        let width = |column: usize| {
            cells
                .iter()
                .filter_map(|row| row.get(column))
                .map(|text| text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let mut text = self.facts.join("\n") + "\n\n";
        for row in &cells {
            let padded: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let _ = writeln!(text, "{}", padded.join("  ").trim_end());
        }
        text + "\n" + &self.notes.join("\n") + "\n"
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        let mut text =
            self.facts.iter().map(|fact| format!("- {fact}\n")).collect::<String>() + "\n";
        for (index, row) in self.cells().iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if index == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        text + "\n" + &self.notes.iter().map(|note| format!("- {note}\n")).collect::<String>()
    }
}

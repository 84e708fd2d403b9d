//! Tables of contrib/detection.md that tests make: each stands between `<!-- table: NAME -->` and
//! `<!-- end -->`. A test holds what is stable in them to its result, or, with `PORTSENTRY_BLESS=1`,
//! writes them.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Tests that write run side by side.
static FILE: Mutex<()> = Mutex::new(());

/// Whether files that the repository has are written instead of compared.
pub fn is_blessed() -> bool {
    std::env::var_os("PORTSENTRY_BLESS").is_some_and(|value| value == "1")
}

/// The cells of a table, its header first.
type Table = Vec<Vec<String>>;

fn document() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/detection.md"))
}

/// What is before a table, the table, and what is after it.
fn read(name: &str) -> (String, Table, String) {
    let text = std::fs::read_to_string(document()).unwrap();
    let begin = format!("<!-- table: {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (lines, after) = rest.split_once("<!-- end -->").unwrap();
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines = lines.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    (format!("{before}{begin}"), lines.map(cells).collect(), format!("<!-- end -->{after}"))
}

fn write(before: &str, table: &Table, after: &str) {
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rule = format!("{}|\n", "|---".repeat(table[0].len()));
    let rows: String = table[1..].iter().map(line).collect();
    std::fs::write(document(), format!("{before}{}{rule}{rows}{after}", line(&table[0]))).unwrap();
}

/// Holds a table whose first columns, `stable` of them, do not depend on the run.
pub fn hold(name: &str, header: &[&str], rows: Vec<Vec<String>>, stable: usize) {
    let _guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let (before, committed, after) = read(name);
    let header = header.iter().map(|&cell| cell.to_owned()).collect();
    let table: Table = std::iter::once(header).chain(rows).collect();
    if is_blessed() {
        return write(&before, &table, &after);
    }
    let first = |table: &Table| -> Vec<String> {
        table.iter().map(|row| row[..stable.min(row.len())].join(" | ")).collect()
    };
    // A run may leave the last rows out.
    let (made, mut stated) = (first(&table), first(&committed));
    stated.truncate(made.len());
    assert_eq!(made, stated, "run with PORTSENTRY_BLESS=1 for table {name}");
}

/// Holds one column of a table: for each row its first two cells, and the one of this column.
pub fn hold_column(name: &str, column: &str, rows: &[[String; 3]]) {
    let _guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let (before, mut table, after) = read(name);
    let at = table[0].iter().position(|head| head == column);
    let at = at.unwrap_or_else(|| panic!("table {name} has no column {column:?}"));
    if is_blessed() {
        let width = table[0].len();
        for [row, what, cell] in rows {
            if !table[1..].iter().any(|cells| cells[0] == *row) {
                let mut cells = vec![String::new(); width];
                cells[0].clone_from(row);
                table.push(cells);
            }
            let cells = table[1..].iter_mut().find(|cells| cells[0] == *row).unwrap();
            cells[1].clone_from(what);
            cells[at].clone_from(cell);
        }
        let place = |cells: &[String]| rows.iter().position(|[row, ..]| cells[0] == *row);
        let header = table.remove(0);
        table.retain(|cells| place(cells).is_some());
        table.sort_by_key(|cells| place(cells));
        table.insert(0, header);
        return write(&before, &table, &after);
    }
    let committed: Vec<[&str; 3]> =
        table[1..].iter().map(|cells| [&*cells[0], &*cells[1], &*cells[at]]).collect();
    let rows: Vec<[&str; 3]> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    assert_eq!(rows, committed, "run with PORTSENTRY_BLESS=1 for table {name}, {column}");
}

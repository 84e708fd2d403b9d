//! The known word that a wrong one is nearest to.

/// Words longer than this are not compared: no key is half as long, and the comparison costs the product of both lengths.
const COMPARED_MAX: usize = 48;

/// The one of `known` that is nearest to `word`, if it is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = normal(word)?;
    // A third of the letters may differ: enough for a slip, too little for another word.
    let allowed = (word.len() / 3).max(1);
    known
        .into_iter()
        .filter_map(|candidate| Some((distance(&word, &normal(candidate)?), candidate)))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// For comparison: letter case and the kind of dash do not count.
pub(super) fn normal(word: &str) -> Option<Vec<char>> {
    (word.len() <= COMPARED_MAX).then(|| word.chars().map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() }).collect())
}

/// Letters that must be changed, added, left out or swapped with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, &x) in a.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, &y) in b.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&above, column) + usize::from(x != y)).min(at(&above, column + 1) + 1).min(at(&line, column) + 1);
            let swapped = row > 0 && column > 0 && a.get(row - 1) == Some(&y) && b.get(column - 1) == Some(&x);
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            line.push(cost);
        }
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = ["scan_trigger", "scan_window", "mode", "allow"];
        for (wrong, right) in [("scan_triger", "scan_trigger"), ("scan-window", "scan_window"), ("MODE", "mode"), ("mdoe", "mode"), ("alow", "allow")]
        {
            assert_eq!(nearest(wrong, known), Some(right), "{wrong}");
        }
        assert_eq!(nearest("timeout", known), None);
        assert_eq!(nearest(&"scan_trigger".repeat(1000), known), None);
    }
}

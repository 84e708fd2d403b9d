//! Finds the known word most similar to an unknown one.

/// Longer words are not compared: no key is half as long, and the comparison costs the product of
/// both lengths.
const COMPARED_MAX: usize = 48;

/// The most similar word of `known`, if it is similar enough.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = normal(word)?;
    // A third of the letters may differ: enough for a typing error, too little for another word.
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter_map(|candidate| Some((strsim::osa_distance(&word, &normal(candidate)?), candidate)))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The word without letter case and kind of dash.
pub(super) fn normal(word: &str) -> Option<String> {
    (word.len() <= COMPARED_MAX).then(|| {
        word.chars()
            .map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised() {
        let known = ["scan_trigger", "scan_window", "mode", "allow"];
        for (wrong, right) in [
            ("scan_triger", "scan_trigger"),
            ("scan-window", "scan_window"),
            ("MODE", "mode"),
            ("mdoe", "mode"),
            ("alow", "allow"),
        ] {
            assert_eq!(nearest(wrong, known), Some(right), "{wrong}");
        }
        assert_eq!(nearest("timeout", known), None);
        assert_eq!(nearest(&"scan_trigger".repeat(1000), known), None);
    }
}

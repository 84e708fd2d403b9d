//! Our section of a text file, between two comment lines. Pure; all other bytes are kept.

/// Begins our section. The rest of the line is a remark.
const BEGIN: &[u8] = b"# portsentry: begin";

/// Ends our section.
const END: &[u8] = b"# portsentry: end";

/// The whole first line.
const BEGIN_LINE: &[u8] =
    b"# portsentry: begin (lines between these marks are kept by portsentry)\n";

/// The first line when the line end before it is ours as well: the file did not end with one, or
/// its last line would have continued (a backslash at its end, hosts_access(5)) and swallowed the
/// mark.
const BEGIN_LINE_AFTER_GLUE: &[u8] = b"# portsentry: begin (lines between these marks are kept by portsentry; the line end before them too)\n";

/// The remark that marks this.
const GLUE: &[u8] = b"the line end before them too";

/// The whole last line.
const END_LINE: &[u8] = b"# portsentry: end\n";

/// A file in three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'b> {
    /// The bytes before our section, or the whole file without one.
    pub(super) before: &'b [u8],
    /// The lines between the marks.
    pub(super) ours: &'b [u8],
    /// The bytes after our section.
    pub(super) after: &'b [u8],
    /// The line end between `before` and our section is ours.
    glued: bool,
    /// Whether there is a section.
    present: bool,
}

/// The fault of the marks, and its line, from 1.
pub type Damage = (&'static str, usize);

impl<'b> Parts<'b> {
    /// Finds our section.
    ///
    /// # Errors
    /// The marks are damaged, so that our lines cannot be told from others.
    pub fn of(bytes: &'b [u8]) -> Result<Self, Damage> {
        let (mut begin, mut end) = (None, None);
        let mut at = 0;
        for (number, line) in (1..).zip(bytes.split_inclusive(|&byte| byte == b'\n')) {
            let place = (at, at + line.len());
            at += line.len();
            if line.starts_with(BEGIN) {
                let glued = line.windows(GLUE.len()).any(|part| part == GLUE);
                if begin.replace((place.0, place.1, glued, number)).is_some() {
                    return Err(("the mark that begins our lines is there twice", number));
                }
            } else if line.starts_with(END) {
                if line.trim_ascii_end() != END {
                    return Err(("something stands behind the mark that ends our lines", number));
                }
                if begin.is_none() {
                    return Err((
                        "the mark that ends our lines comes without the one that begins them",
                        number,
                    ));
                }
                if end.replace(place).is_some() {
                    return Err(("the mark that ends our lines is there twice", number));
                }
            }
        }
        let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        match (begin, end) {
            (None, _) => {
                Ok(Self { before: bytes, ours: b"", after: b"", glued: false, present: false })
            }
            (Some((_, _, _, number)), None) => {
                Err(("the mark that begins our lines comes without the one that ends them", number))
            }
            (Some((from, first, marked, _)), Some((last, to))) => {
                // The mark may say so although the text before it was changed.
                let glued = marked && part(0, from).ends_with(b"\n");
                let before = part(0, if glued { from - 1 } else { from });
                Ok(Self {
                    before,
                    ours: part(first, last),
                    after: part(to, bytes.len()),
                    glued,
                    present: true,
                })
            }
        }
    }

    /// Lines outside our section.
    pub fn others(&self) -> impl Iterator<Item = &'b [u8]> {
        lines(self.before).chain(lines(self.after))
    }

    /// Lines of our section.
    pub fn own(&self) -> impl Iterator<Item = &'b [u8]> {
        lines(self.ours)
    }

    /// The file with these lines in our section. Without lines there is no section; a new one is
    /// appended.
    pub fn with(&self, wanted: &[String]) -> Vec<u8> {
        if wanted.is_empty() {
            // Lines after our section are foreign text, which this line end now separates.
            let glue: &[u8] = if self.glued && !self.after.is_empty() { b"\n" } else { b"" };
            return [self.before, glue, self.after].concat();
        }
        let swallows = self.before.ends_with(b"\\\n");
        let is_open = !self.before.is_empty() && !self.before.ends_with(b"\n");
        let glued = swallows || if self.present { self.glued } else { is_open };
        let (glue, begin): (&[u8], _) =
            if glued { (b"\n", BEGIN_LINE_AFTER_GLUE) } else { (b"", BEGIN_LINE) };
        let lines: String = wanted.iter().flat_map(|line| [line, "\n"]).collect();
        [self.before, glue, begin, lines.as_bytes(), END_LINE, self.after].concat()
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn the_part_comes_at_the_end_and_goes_without_a_trace() {
        for others in [&b""[..], b"ALL: x\n", b"ALL: x", b"\xff\r\nALL: y\r\n", b"a \\\n", b"\n"] {
            let with = Parts::of(others).unwrap().with(&wanted(&["ALL: 192.0.2.1"]));
            assert!(
                with.starts_with(others)
                    && text(&with).ends_with("\nALL: 192.0.2.1\n# portsentry: end\n"),
                "{}",
                text(&with)
            );
            assert_eq!(Parts::of(&with).unwrap().with(&[]), others, "{}", text(&with));
            assert_eq!(Parts::of(&with).unwrap().with(&wanted(&["ALL: 192.0.2.1"])), with);
        }
    }

    #[test]
    fn a_line_to_be_continued_does_not_swallow_the_mark() {
        let with = text(&Parts::of(b"a: b \\\n").unwrap().with(&wanted(&["l"])));
        assert!(with.starts_with("a: b \\\n\n# portsentry: begin ("), "{with}");
    }

    #[test]
    fn foreign_lines_after_the_section_stay_whole() {
        let with = Parts::of(b"before").unwrap().with(&wanted(&["l"]));
        let appended = [&with[..], b"behind\n"].concat();
        let parts = Parts::of(&appended).unwrap();
        assert_eq!(text(&parts.with(&[])), "before\nbehind\n");
        assert!(text(&parts.with(&wanted(&["m"]))).ends_with("m\n# portsentry: end\nbehind\n"));
    }

    #[test]
    fn marks_with_foreign_line_ends_are_recognised() {
        let bytes = b"x\r\n# portsentry: begin (...)\r\nALL: 1\r\n# portsentry: end\r\ny";
        let parts = Parts::of(bytes).unwrap();
        assert_eq!(
            (parts.before, parts.ours, parts.after),
            (&b"x\r\n"[..], &b"ALL: 1\r\n"[..], &b"y"[..])
        );
    }

    #[test]
    fn damaged_marks_are_an_error_with_their_line() {
        for (bytes, line) in [
            ("a\n# portsentry: begin\nb\n", 2),
            ("# portsentry: end\n", 1),
            ("# portsentry: begin\n# portsentry: endALL: x\n", 2),
            ("# portsentry: begin\n# portsentry: begin\n# portsentry: end\n", 2),
            ("# portsentry: begin\n# portsentry: end\n# portsentry: end", 3),
            (
                "# portsentry: begin\n# portsentry: end\n\n# portsentry: begin\n# portsentry: end\n",
                4,
            ),
        ] {
            assert_eq!(Parts::of(bytes.as_bytes()).unwrap_err().1, line, "{bytes}");
        }
    }

    /// Foreign lines, with odd line ends and incomplete marks.
    fn others() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::sample::select(vec![
                "ALL: x",
                "\n",
                "\r\n",
                "\\\n",
                "\\",
                "# portsentry:",
                " # portsentry: end",
                "#",
                "\n\n"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        // P21
        #[test]
        fn every_byte_of_others_stays(before in others(), after in others(), first in 0usize..4, second in 0usize..4) {
            let list = |count: usize| (0..count).map(|n| format!("ALL: 192.0.2.{n}")).collect::<Vec<_>>();
            let Ok(parts) = Parts::of(&before) else { return Ok(()) };
            prop_assume!(!parts.present);
            let mut bytes = parts.with(&list(first));
            bytes.extend_from_slice(&after);
            // Appended text may continue a mark's line only if there is none.
            let Ok(parts) = Parts::of(&bytes) else { return Ok(()) };
            let bytes = parts.with(&list(second));
            let parts = Parts::of(&bytes).unwrap();
            let own: Vec<_> = parts.own().filter(|line| !line.is_empty()).map(text).collect();
            prop_assert_eq!(own, list(second));
            let left = parts.with(&[]);
            let plain = [&before[..], &after[..]].concat();
            let with_line_end = [&before[..], b"\n", &after[..]].concat();
            prop_assert!(left == plain || (first > 0 && !after.is_empty() && left == with_line_end), "{:?}", text(&left));
        }
    }
}

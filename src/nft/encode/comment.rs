//! Comments of sets and elements, in the form of user data that nft(8) reads: libnftnl's udata.h.
//! The kernel only keeps them.

use crate::nft::element::COMMENT_MAX;

/// Type, length with NUL, text, NUL. What nft could not read back, or would show as control
/// characters, becomes `?`.
pub(super) fn write_comment(kind: u8, comment: &str, out: &mut Vec<u8>) {
    let mut length = comment.len().min(COMMENT_MAX);
    while !comment.is_char_boundary(length) {
        length -= 1;
    }
    let text = comment.get(..length).unwrap_or_default();
    let shown = |byte: u8| match byte {
        b'"' | b'\\' | ..b' ' | 0x7f => b'?',
        _ => byte,
    };
    out.extend([kind, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)]);
    out.extend(text.bytes().map(shown));
    out.push(0);
}

//! Encodes an answer as lines, in pieces of bounded size.

use super::handler::Replies;
use super::protocol::{Reply, line};

/// A piece ends with the line that reaches this size: a fraction of a millisecond's work, and less
/// than the socket's buffer of 208 KiB.
const PIECE_LEN: usize = 64 << 10;

/// The next lines of an answer, and whether more follow.
pub(super) fn next_piece(replies: &mut Replies) -> (String, bool) {
    let (mut lines, mut more) = (String::new(), true);
    while more
        && lines.len() < PIECE_LEN
        && let Some(reply) = replies.next()
    {
        more =
            matches!(reply, Reply::Blocks { more: true, .. } | Reply::History { more: true, .. });
        lines.push_str(&line_or_refusal(&reply));
    }
    (lines, more)
}

/// The line of a reply, or of the refusal if it cannot be encoded.
pub(super) fn line_or_refusal(reply: &Reply) -> String {
    line(reply).or_else(|refusal| line(&Reply::Error(refusal))).unwrap_or_default()
}

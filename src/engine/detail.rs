//! What a scan did, as text, in 24 bytes instead of some eighty: there may be a million of them.

use std::fmt;

/// Bytes of a text that needs no memory of its own: that of five ports.
const ROOM: usize = 22;

/// What one byte from [`FIRST`] on stands for. Each begins with a space.
const WORDS: [&str; 7] =
    [" tcp/", " udp/", " sctp/", " ip/", " ports in ", " addresses in ", " ports or more in a day"];

/// The first of these words are each followed by a number, in two bytes.
const NUMBERED: usize = 4;

/// The first byte that is no character of ASCII.
const FIRST: u8 = 0x80;

/// The text of what a scan did: `3 ports in 0.2s: tcp/1 tcp/2 tcp/3`.
///
/// Any text goes in and comes out as it was ([`fmt::Display`]). Those of the engine are short; others
/// have memory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// So many bytes, and zeros.
    Short(u8, [u8; ROOM]),
    Long(Box<str>),
}

const _: () = assert!(size_of::<Detail>() == 24);

impl Default for Detail {
    fn default() -> Self {
        Self(Form::Short(0, [0; ROOM]))
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self(pack(text.as_bytes()).unwrap_or_else(|| Form::Long(text.into())))
    }
}

/// The short form; `None`: it has no room, or the text is not ASCII.
fn pack(mut text: &[u8]) -> Option<Form> {
    let (mut packed, mut length) = ([0; ROOM], 0);
    let mut put = |byte: u8| {
        *packed.get_mut(length)? = byte;
        length += 1;
        Some(())
    };
    while let Some((first, after)) = text.split_first() {
        if !first.is_ascii() {
            return None;
        }
        let (code, number, after) = word(text).unwrap_or((*first, None, after));
        put(code)?;
        number.into_iter().flat_map(u16::to_le_bytes).try_for_each(&mut put)?;
        text = after;
    }
    Some(Form::Short(u8::try_from(length).ok()?, packed))
}

/// The byte of the word that `text` begins with, its number, and what follows.
fn word(text: &[u8]) -> Option<(u8, Option<u16>, &[u8])> {
    if text.first() != Some(&b' ') {
        return None;
    }
    let (at, after) = WORDS
        .iter()
        .enumerate()
        .find_map(|(at, word)| Some((at, text.strip_prefix(word.as_bytes())?)))?;
    let code = FIRST.checked_add(u8::try_from(at).ok()?)?;
    if at >= NUMBERED {
        return Some((code, None, after));
    }
    let (number, after) = number(after)?;
    Some((code, Some(number), after))
}

/// A number as it is written: without zeros before it, which would be lost.
fn number(text: &[u8]) -> Option<(u16, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, after) = text.split_at_checked(length)?;
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with(b"0")) {
        return None;
    }
    let number = digits.iter().try_fold(0_u16, |number, digit| {
        number.checked_mul(10)?.checked_add(u16::from(digit.wrapping_sub(b'0')))
    })?;
    Some((number, after))
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = match &self.0 {
            Form::Short(length, packed) => packed.get(..usize::from(*length)).unwrap_or_default(),
            Form::Long(text) => return f.write_str(text),
        };
        loop {
            let plain = rest.iter().take_while(|byte| byte.is_ascii()).count();
            let (plain, after) = rest.split_at_checked(plain).unwrap_or_default();
            f.write_str(str::from_utf8(plain).unwrap_or_default())?;
            let Some((code, after)) = after.split_first() else { return Ok(()) };
            let at = usize::from(code.wrapping_sub(FIRST));
            f.write_str(WORDS.get(at).copied().unwrap_or_default())?;
            rest = after;
            if at < NUMBERED
                && let Some((number, after)) = after.split_first_chunk()
            {
                u16::from_le_bytes(*number).fmt(f)?;
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_the_engine_need_no_memory_of_their_own() {
        for text in [
            "",
            "1 port: tcp/22",
            "3 ports in 0.2s: tcp/1 tcp/2 tcp/3",
            "3 ports in 59.9s: tcp/65535 sctp/65535 ip/255",
            "5 ports in 9.9s: udp/10001 udp/10002 udp/10003 udp/10004 udp/10005",
            "100+ addresses in 10m",
            "tcp/445 of 11 addresses in 0.2s",
            "udp/53 of 99 addresses in 3h",
            "23 ports or more in a day",
        ] {
            let detail = Detail::from(text);
            assert!(matches!(detail.0, Form::Short(..)), "{text}");
            assert_eq!(detail.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_out_as_it_was(text in "( (tcp|udp|ip|sctp|x)/[0-9]{0,6}| ports in |[ -~é\u{80}]){0,9}") {
            prop_assert_eq!(Detail::from(text.as_str()).to_string(), text);
        }
    }
}

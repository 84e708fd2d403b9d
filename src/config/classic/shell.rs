//! Splits a classic command into words as a shell would, if that is possible without a shell.
//!
//! The old programs replaced macros in the text and passed it to `/bin/sh -c`. Here the command is
//! split first and macros are replaced in the words afterwards, so that text from a packet or name
//! server is never read as a command. Follows POSIX.1-2017, Shell Command Language, 2.2 and 2.3,
//! and refuses everything beyond quoting.

use super::keys::MACROS;

/// Splits `command` into words, with macros renamed.
///
/// # Errors
/// The part that needs a shell.
pub(super) fn split(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = command;
    while let Some(next) = rest.chars().next() {
        if let Some((known, ours)) = MACROS.iter().find(|(known, _)| rest.starts_with(known)) {
            word.get_or_insert_default().push_str(ours);
            rest = rest.get(known.len()..).unwrap_or_default();
            continue;
        }
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
        match (quote, next) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), plain) => word.get_or_insert_default().push(plain),
            (None, '\'' | '"') => {
                quote = Some(next);
                word.get_or_insert_default();
            }
            (_, '$') => return Err("it expands `$`".to_owned()),
            (_, '`') => return Err("it runs another command in backquotes".to_owned()),
            (Some(_), '\\') => return Err("it has a backslash within double quotes".to_owned()),
            (Some(_), plain) => word.get_or_insert_default().push(plain),
            (None, '\\') => match rest.chars().next() {
                Some('$') | None => {
                    return Err("it has a backslash before a macro, or at its end".to_owned());
                }
                Some(escaped) => {
                    word.get_or_insert_default().push(escaped);
                    rest = rest.get(escaped.len_utf8()..).unwrap_or_default();
                }
            },
            (None, blank) if blank.is_ascii_whitespace() => words.extend(word.take()),
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')' | '{' | '}' | '!') => {
                return Err(format!(
                    "it has `{next}` in it, which runs more than one command, or redirects"
                ));
            }
            (None, '*' | '?' | '[' | ']') => {
                return Err(format!("it has the pattern `{next}` in it"));
            }
            (None, '#' | '~') if word.is_none() => {
                return Err(format!("it has a word that begins with `{next}`"));
            }
            (None, '=') if words.is_empty() => return Err("it sets a variable".to_owned()),
            (None, plain) => word.get_or_insert_default().push(plain),
        }
    }
    if quote.is_some() {
        return Err("it has a quote that is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let parts = |text: &str| split(text).unwrap();
        assert_eq!(
            parts("/some/script $TARGET$ $PORT$ $MODE$"),
            ["/some/script", "{target}", "{port}", "{mode}"]
        );
        assert_eq!(
            parts("  /bin/x  'two words' \"three $TARGET$ more\" a\\ b '' x=1 c#d"),
            ["/bin/x", "two words", "three {target} more", "a b", "", "x=1", "c#d"]
        );
        assert_eq!(parts("/bin/x --ip=$TARGET$:$PORT$"), ["/bin/x", "--ip={target}:{port}"]);
        assert_eq!(parts(""), [""; 0]);
    }

    #[test]
    fn commands_that_need_a_shell_are_refused() {
        for text in [
            "/bin/a && /bin/b",
            "/bin/a; b",
            "/bin/a | b",
            "/bin/a > /f",
            "/bin/a `b`",
            "/bin/a $(b)",
            "/bin/a $HOME",
            "/bin/a \"$HOME\"",
            "/bin/a *",
            "X=1 /bin/a",
            "/bin/a 'x",
            "/bin/a ~/x",
            "/bin/a # x",
            "/bin/a \\$TARGET$",
            "/bin/a {1,2}",
            "/bin/a \\",
        ] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Words that are quoted for a shell come back unchanged.
        #[test]
        fn quoted_words_come_back(list in proptest::collection::vec("[ -~]{0,12}", 1..6)) {
            let list: Vec<String> = list.into_iter().map(|word| word.replace('$', "S")).collect();
            let line = list.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(&line), Ok(list));
        }
    }
}

//! A command line cut into words the way a POSIX shell would, without a shell: no variables, no globs, no pipes.
//!
//! Source: POSIX.1-2024, Shell Command Language, 2.2 Quoting.

use super::EndpointError;

/// Cuts `text` into words. `'…'` is taken as it is; inside `"…"` a backslash takes away the meaning of `"`, `\`, `$` and
/// a backquote; elsewhere it takes away the meaning of the next character.
pub(super) fn split(text: &str) -> Result<Vec<String>, EndpointError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut plain = true;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\0' => return Err(EndpointError::Nul),
            char if char.is_whitespace() => finish(&mut words, &mut word, &mut plain)?,
            '\'' => {
                plain = false;
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(EndpointError::UnclosedQuote { quote: '\'' }),
                        Some('\0') => return Err(EndpointError::Nul),
                        Some('\'') => break,
                        Some(char) => word.push(char),
                    }
                }
            }
            '"' => {
                plain = false;
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(EndpointError::UnclosedQuote { quote: '"' }),
                        Some('\0') => return Err(EndpointError::Nul),
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            None => return Err(EndpointError::UnclosedQuote { quote: '"' }),
                            Some('\0') => return Err(EndpointError::Nul),
                            Some(char @ ('"' | '\\' | '$' | '`')) => word.push(char),
                            Some(char) => word.extend(['\\', char]),
                        },
                        Some(char) => word.push(char),
                    }
                }
            }
            '\\' => {
                plain = false;
                match chars.next() {
                    None => return Err(EndpointError::UnclosedQuote { quote: '\\' }),
                    Some('\0') => return Err(EndpointError::Nul),
                    Some(char) => word.get_or_insert_default().push(char),
                }
            }
            char => word.get_or_insert_default().push(char),
        }
    }
    finish(&mut words, &mut word, &mut plain)?;
    Ok(words)
}

/// Ends the word that is being read. A bare operator would reach the program as an argument, which nobody means.
fn finish(words: &mut Vec<String>, word: &mut Option<String>, plain: &mut bool) -> Result<(), EndpointError> {
    if let Some(word) = word.take() {
        if *plain && matches!(word.as_str(), "|" | "||" | "&" | "&&" | ";" | ">" | ">>" | "<" | "2>" | "2>&1")
        {
            return Err(EndpointError::ShellOperator { operator: word });
        }
        words.push(word);
    }
    *plain = true;
    Ok(())
}

/// Writes `word` so that [`split`] reads it back as one word. A question mark is quoted lest what stands behind it be
/// taken for misplaced options.
pub(super) fn quote(word: &str) -> String {
    let safe = |char: char| char.is_ascii_alphanumeric() || "-_./:=@%+,#~^[]{}!*$()".contains(char);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_a_shell_cuts_them() {
        for (text, words) in [
            ("a b  c", vec!["a", "b", "c"]),
            (r#"a "b c" 'd  e'"#, vec!["a", "b c", "d  e"]),
            (r#"a\ b "c\"d" "e\f" 'g\h'"#, vec!["a b", "c\"d", "e\\f", "g\\h"]),
            (r#"a"b"'c'd "" ''"#, vec!["abcd", "", ""]),
            ("  ", vec![]),
            ("$HOME *.rs ~", vec!["$HOME", "*.rs", "~"]),
            ("a '|' b", vec!["a", "|", "b"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    /// Found by fuzzing: behind a backslash in double quotes it was let through.
    #[test]
    fn nul_is_refused_wherever_it_stands() {
        for text in ["\0", "a\0", "'\0'", "\"\0\"", "\"\\\0\"", "\\\0"] {
            assert!(matches!(split(text), Err(EndpointError::Nul)), "{text:?}");
        }
    }

    #[test]
    fn what_only_a_shell_could_do_is_refused() {
        for text in ["a | b", "a && b", "a > b", "a;b ; c", "a 2>&1"] {
            assert!(matches!(split(text), Err(EndpointError::ShellOperator { .. })), "{text}");
        }
        for text in ["a 'b", "a \"b", "a \"b\\", "a\\"] {
            assert!(matches!(split(text), Err(EndpointError::UnclosedQuote { .. })), "{text}");
        }
    }
}

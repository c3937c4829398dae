//! A command line that the program reads as the arguments that were given: pure code.
//!
//! Windows hands a program one string. By the rules of `CommandLineToArgvW` and of the C runtime, which std and
//! nearly every program follow: blanks separate; quotes keep together; backslashes count only before a quote, where
//! two stand for one.
//!
//! Reference: [Parsing C command-line arguments](https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments).
#![forbid(unsafe_code)]

const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;
const SPACE: u16 = b' ' as u16;

/// What `CreateProcess` takes, with its NUL.
pub(super) const LONGEST: usize = 32_767;

/// The command line, with a NUL at its end. Nothing in it holds one already; `program` holds no quote, which no
/// file name does.
pub(super) fn command_line<'a>(
    program: &[u16],
    arguments: impl IntoIterator<Item = &'a [u16]>,
    raw_tail: Option<&[u16]>,
) -> Vec<u16> {
    // The first is read by rules of its own: no escapes, up to the next quote.
    let mut line = vec![QUOTE];
    line.extend_from_slice(program);
    line.push(QUOTE);
    for argument in arguments {
        line.push(SPACE);
        push(&mut line, argument);
    }
    if let Some(tail) = raw_tail {
        line.push(SPACE);
        line.extend_from_slice(tail);
    }
    line.push(0);
    line
}

/// The command line of cmd.exe that runs a batch file, with a NUL at its end: no AutoRun, delayed expansion off, and
/// of the two outer quotes that `/s` takes away nothing else. `batch` holds no quote and no percent sign.
pub(super) fn batch_line(cmd: &[u16], batch: &[u16], raw_tail: Option<&[u16]>) -> Vec<u16> {
    let mut line = vec![QUOTE];
    line.extend_from_slice(cmd);
    line.extend("\" /e:ON /v:OFF /d /s /c \"\"".encode_utf16());
    line.extend_from_slice(batch);
    line.push(QUOTE);
    if let Some(tail) = raw_tail {
        line.push(SPACE);
        line.extend_from_slice(tail);
    }
    line.extend([QUOTE, 0]);
    line
}

fn push(line: &mut Vec<u16>, argument: &[u16]) {
    // Other blanks than these two do not separate, but programs with a reading of their own take them so.
    let plain = |unit: &u16| !matches!(*unit, QUOTE | SPACE | 9..=13);
    if !argument.is_empty() && argument.iter().all(plain) {
        line.extend_from_slice(argument);
        return;
    }
    line.push(QUOTE);
    let mut backslashes = 0;
    for unit in argument {
        match *unit {
            BACKSLASH => backslashes += 1,
            QUOTE => {
                // Those before it twice, and one for the quote itself.
                line.extend(std::iter::repeat_n(BACKSLASH, backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        line.push(*unit);
    }
    // They stand before the closing quote.
    line.extend(std::iter::repeat_n(BACKSLASH, backslashes));
    line.push(QUOTE);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn line(arguments: &[&str]) -> String {
        let arguments: Vec<Vec<u16>> = arguments.iter().map(|one| wide(one)).collect();
        let line = command_line(&wide("p"), arguments.iter().map(Vec::as_slice), None);
        String::from_utf16(&line[..line.len() - 1]).unwrap()
    }

    /// The documented reading, written down once more and independently.
    fn read(line: &[u16]) -> Vec<Vec<u16>> {
        let mut units = line.iter().copied().take_while(|unit| *unit != 0).peekable();
        assert_eq!(units.next(), Some(QUOTE));
        let mut all = vec![units.by_ref().take_while(|unit| *unit != QUOTE).collect::<Vec<_>>()];
        loop {
            while units.next_if(|unit| matches!(*unit, SPACE | 9)).is_some() {}
            if units.peek().is_none() {
                return all;
            }
            let (mut argument, mut quoted) = (Vec::new(), false);
            while let Some(unit) = units.next_if(|unit| quoted || !matches!(*unit, SPACE | 9)) {
                if unit == BACKSLASH {
                    let mut count = 1;
                    while units.next_if_eq(&BACKSLASH).is_some() {
                        count += 1;
                    }
                    let before_quote = units.peek() == Some(&QUOTE);
                    let kept = if before_quote { count / 2 } else { count };
                    argument.extend(std::iter::repeat_n(BACKSLASH, kept));
                    if before_quote && count % 2 == 1 {
                        argument.push(QUOTE);
                        units.next();
                    }
                } else if unit == QUOTE {
                    quoted = !quoted;
                } else {
                    argument.push(unit);
                }
            }
            all.push(argument);
        }
    }

    #[test]
    fn the_documented_examples_are_written_as_documented() {
        assert_eq!(line(&["a b", "c"]), r#""p" "a b" c"#);
        assert_eq!(line(&[""]), r#""p" """#);
        assert_eq!(line(&[r#"a"b"#]), r#""p" "a\"b""#);
        assert_eq!(line(&[r"a\\b", r"c d\"]), r#""p" a\\b "c d\\""#);
        assert_eq!(line(&[r#"\""#]), r#""p" "\\\"""#);
    }

    #[test]
    fn a_raw_tail_stays_as_it_is() {
        let tail = wide(r#"/c "echo a^&b""#);
        let line = command_line(&wide("cmd"), [], Some(&tail));
        assert_eq!(String::from_utf16(&line).unwrap(), "\"cmd\" /c \"echo a^&b\"\0");
    }

    #[test]
    fn a_batch_file_stands_in_the_quotes_that_cmd_takes_away() {
        let line = batch_line(&wide(r"C:\w\cmd.exe"), &wide(r"C:\a b\x.bat"), Some(&wide("one ^& two")));
        let expected = r#""C:\w\cmd.exe" /e:ON /v:OFF /d /s /c ""C:\a b\x.bat" one ^& two""#;
        assert_eq!(String::from_utf16(&line[..line.len() - 1]).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn whatever_is_given_is_what_is_read(arguments in proptest::collection::vec("[ \t\"\\\\a\u{e4}\n]{0,8}", 0..6)) {
            let arguments: Vec<Vec<u16>> = arguments.iter().map(|one| wide(one)).collect();
            let line = command_line(&wide(r"C:\a b\p.exe"), arguments.iter().map(Vec::as_slice), None);
            let all = read(&line);
            prop_assert_eq!(&all[1..], &arguments[..]);
        }

        #[cfg(windows)]
        #[test]
        fn the_system_reads_what_was_given(arguments in proptest::collection::vec("[ \t\"\\\\a\u{e4}\n]{0,8}", 0..6)) {
            let arguments: Vec<Vec<u16>> = arguments.iter().map(|one| wide(one)).collect();
            let line = command_line(&wide(r"C:\a b\p.exe"), arguments.iter().map(Vec::as_slice), None);
            let all = super::super::tests::command_line_to_argv(&line);
            prop_assert_eq!(&all[1..], &arguments[..]);
            prop_assert_eq!(all, read(&line));
        }
    }
}

//! The JSON grammar over bytes, without recursion.

use std::borrow::Cow;

/// Returns the first position from `at` on that is not white space.
pub(super) fn space(text: &[u8], at: usize) -> usize {
    at + text[at.min(text.len())..].iter().take_while(|byte| b" \t\n\r".contains(byte)).count()
}

/// Returns the position after the value that begins at `at`; `None` if no valid value begins there. Needs one byte of
/// memory per level of nesting.
pub(super) fn value_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut open = Vec::new();
    loop {
        // A value begins here.
        at = match text.get(at)? {
            start @ (b'{' | b'[') => {
                let closer = if *start == b'{' { b'}' } else { b']' };
                let inner = space(text, at + 1);
                if text.get(inner) == Some(&closer) {
                    inner + 1
                } else {
                    open.push(closer);
                    at = if closer == b'}' { name_end(text, inner)? } else { inner };
                    continue;
                }
            }
            b'"' => string_end(text, at)?,
            b'-' | b'0'..=b'9' => number_end(text, at)?,
            _ => ["true", "false", "null"]
                .iter()
                .find(|word| text[at..].starts_with(word.as_bytes()))
                .map(|word| at + word.len())?,
        };
        // A value has ended here.
        loop {
            let Some(closer) = open.last() else { return Some(at) };
            at = space(text, at);
            match text.get(at)? {
                b',' => {
                    at = space(text, at + 1);
                    if *closer == b'}' {
                        at = name_end(text, at)?;
                    }
                    break;
                }
                byte if byte == closer => {
                    open.pop();
                    at += 1;
                }
                _ => return None,
            }
        }
    }
}

/// Returns the position of the value whose name begins at `at`.
fn name_end(text: &[u8], at: usize) -> Option<usize> {
    let colon = space(text, string_end(text, at)?);
    (text.get(colon) == Some(&b':')).then(|| space(text, colon + 1))
}

/// Returns the position after the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at = plain_end(text, at);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                at += match text.get(at + 1)? {
                    b'u' => unit(text, at).map(|_| 6)?,
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    _ => return None,
                }
            }
            0..=0x1f => return None,
            _ => at += 1,
        }
    }
}

/// Returns a position from `at` on before which every byte of a string stands for itself: all eight at a time, as long as
/// none of them is a quote, a backslash or a control character.
fn plain_end(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = ONES << 7;
    // The high bit of a byte is set if the byte is below `bound`, which is at most 0x80. A borrow may set those of the
    // bytes after one that is, never of others.
    let any_below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGH;
    while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*eight);
        let quote = any_below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = any_below(word ^ (ONES * u64::from(b'\\')), 1);
        if (quote | backslash | any_below(word, 0x20)) != 0 {
            break;
        }
        at += 8;
    }
    at
}

/// Returns the UTF-16 code unit whose escape begins at `at`. `None` if there is no such escape.
pub(super) fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
    digits.iter().try_fold(0, |unit, byte| digit(byte).map(|digit| unit << 4 | digit))
}

/// Returns the position after the number that begins at `at`.
pub(super) fn number_end(text: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| at + text[at.min(text.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let some_digits = |at: usize| Some(digits(at)).filter(|end| *end > at);
    let mut at = if text.get(at) == Some(&b'-') { at + 1 } else { at };
    at = if text.get(at) == Some(&b'0') { at + 1 } else { some_digits(at)? };
    if text.get(at) == Some(&b'.') {
        at = some_digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = some_digits(at + 1 + sign)?;
    }
    Some(at)
}

/// Resolves the escapes of a string; `inner` is the text between its quotes. An unpaired surrogate becomes U+FFFD.
pub(super) fn decoded(inner: &str) -> Cow<'_, str> {
    let Some(first) = inner.find('\\') else { return Cow::Borrowed(inner) };
    let bytes = inner.as_bytes();
    let mut text = inner[..first].to_owned();
    let mut at = first;
    while at < inner.len() {
        let Some(plain) = inner[at..].find('\\') else {
            text.push_str(&inner[at..]);
            break;
        };
        text.push_str(&inner[at..at + plain]);
        at += plain;
        let (meant, length) = escaped(bytes, at);
        text.push(meant);
        at += length;
    }
    Cow::Owned(text)
}

/// Returns the character of the escape at `at` and the length of the escape in bytes.
fn escaped(text: &[u8], at: usize) -> (char, usize) {
    let Some(first) = unit(text, at) else {
        let meant = match text.get(at + 1) {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(byte) => char::from(*byte),
            None => char::REPLACEMENT_CHARACTER,
        };
        return (meant, 2);
    };
    let second = unit(text, at + 6);
    let pair = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    match (char::decode_utf16([first]).next(), pair) {
        (Some(Ok(meant)), _) => (meant, 6),
        (_, Some(meant)) => (meant, 12),
        (_, None) => (char::REPLACEMENT_CHARACTER, 6),
    }
}

/// Iterator over the entries of an array or object: the name with its escapes, and the value. Names are empty
/// for an array.
#[derive(Debug, Clone)]
pub(super) struct Entries<'a> {
    text: &'a str,
    at: usize,
    named: bool,
}

impl<'a> Entries<'a> {
    /// Creates an iterator over the entries of a valid value that begins with `opener`. Any other value has no entries.
    pub(super) fn of(text: &'a str, opener: u8) -> Self {
        let bytes = text.as_bytes();
        let at = if bytes.first() == Some(&opener) { space(bytes, 1) } else { text.len() };
        Self { text, at, named: opener == b'{' }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        if matches!(bytes.get(self.at), None | Some(b'}' | b']')) {
            return None;
        }
        let (name, start) = if self.named {
            let end = string_end(bytes, self.at)?;
            (&self.text[self.at + 1..end - 1], name_end(bytes, self.at)?)
        } else {
            ("", self.at)
        };
        let end = value_end(bytes, start)?;
        self.at = space(bytes, end);
        if bytes.get(self.at) == Some(&b',') {
            self.at = space(bytes, self.at + 1);
        }
        Some((name, &self.text[start..end]))
    }
}

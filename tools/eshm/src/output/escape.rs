//! Payload and foreign names made harmless: whatever a message holds, the terminal sees only
//! printable characters.

use std::fmt::Write;

/// Bytes as text of one line: printable characters as they are, everything else as an escape
/// (`\n`, `\t`, `\\`, `\xNN`, `\u{NNNN}`).
pub fn bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        push_escaped(&mut text, chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Text that may hold anything, as one harmless line. A backslash stays one.
pub fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if drives_terminal(c) && c != '\n' { push_code(&mut safe, c) } else { safe.push(c) }
    }
    safe
}

fn push_escaped(text: &mut String, valid: &str) {
    for c in valid.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            c if drives_terminal(c) => push_code(text, c),
            c => text.push(c),
        }
    }
}

fn push_code(text: &mut String, c: char) {
    let code = u32::from(c);
    let _ =
        if code < 0x80 { write!(text, "\\x{code:02x}") } else { write!(text, "\\u{{{code:x}}}") };
}

/// Control characters, and the invisible ones that turn the direction of text around or hide it.
fn drives_terminal(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
            | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_text_stays_as_it_is() {
        assert_eq!(bytes("Grüße, 世界!".as_bytes()), "Grüße, 世界!");
    }

    #[test]
    fn nothing_that_drives_a_terminal_gets_through() {
        let nasty = b"\x1b]0;owned\x07\x1b[2J\r\n\x00\x7f\xff\xfe\xc2\x9b31m\\";
        let shown = bytes(nasty);
        assert_eq!(shown, r"\x1b]0;owned\x07\x1b[2J\r\n\x00\x7f\xff\xfe\u{9b}31m\\");
        assert!(bytes("a\u{202e}b\u{200b}".as_bytes()).is_ascii());
    }

    #[test]
    fn every_single_byte_comes_out_printable() {
        for byte in 0..=255u8 {
            assert!(bytes(&[byte]).chars().all(|c| !drives_terminal(c)), "{byte}");
        }
    }

    #[test]
    fn messages_of_errors_keep_their_backslashes_and_lines() {
        assert_eq!(line("a\\x1b\n\x1b[1m"), "a\\x1b\n\\x1b[1m");
    }
}

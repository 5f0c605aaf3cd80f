//! Payload as hexadecimal rows, in the manner of `hexdump -C`.

use std::fmt::Write;

/// Rows of sixteen bytes: offset, bytes, and what is printable of them.
pub fn rows(bytes: &[u8], indent: &str) -> String {
    let mut text = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let _ =
            writeln!(text, "{indent}{:08x}  {:<49} |{}|", row * 16, columns(chunk), glyphs(chunk));
    }
    text
}

/// All bytes as one run of digits.
pub fn plain(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn columns(chunk: &[u8]) -> String {
    let mut text = String::new();
    for (column, byte) in chunk.iter().enumerate() {
        let _ = write!(
            text,
            "{}{byte:02x}",
            if column == 8 {
                "  "
            } else if column > 0 {
                " "
            } else {
                ""
            }
        );
    }
    text
}

fn glyphs(chunk: &[u8]) -> String {
    chunk
        .iter()
        .map(|&byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '.' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_lines_up_whatever_its_length() {
        let text = rows(b"telemetry\x1b[2J frame 7", "  ");
        let expected = "  00000000  74 65 6c 65 6d 65 74 72  79 1b 5b 32 4a 20 66 72  |telemetry.[2J fr|\n  \
                        00000010  61 6d 65 20 37                                    |ame 7|\n";
        assert_eq!(text, expected);
        assert_eq!(plain(b"\x00\xff"), "00ff");
    }
}

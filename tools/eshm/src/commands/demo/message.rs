//! A telemetry message: its number, when it was sent, readings, and a checksum over all of it.

/// Bytes of a message.
pub const LEN: usize = 48;

/// The message with that number.
pub fn encode(number: u64, sent_ns: u64) -> [u8; LEN] {
    let mut words =
        [number, sent_ns, reading(number, 1), reading(number, 2), reading(number, 3), 0];
    words[5] = checksum(&words);
    let mut bytes = [0; LEN];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Number and sending time of a whole message; `None` if one byte of it is not as it was sent.
pub fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    let mut words = [0; 6];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().ok()?);
    }
    let [number, sent_ns, a, b, c, sum] = words;
    let whole =
        sum == checksum(&words) && [a, b, c] == [1, 2, 3].map(|which| reading(number, which));
    whole.then_some((number, sent_ns))
}

/// A reading that both sides know.
fn reading(number: u64, which: u64) -> u64 {
    mix(number.wrapping_mul(4).wrapping_add(which))
}

fn checksum(words: &[u64; 6]) -> u64 {
    words[..5].iter().fold(0x9e37_79b9_7f4a_7c15, |sum, &word| mix(sum ^ word))
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        assert_eq!(decode(&encode(7, 123)), Some((7, 123)));
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        for bit in 0..LEN * 8 {
            let mut bytes = encode(7, 123);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None, "bit {bit}");
        }
        assert_eq!(decode(&encode(7, 123)[1..]), None);
    }
}

//! QUIC's integers of variable length (RFC 9000, 16): the first two bits tell the length.

use bytes::BufMut;

/// The most bytes that one takes.
pub(crate) const MAX_BYTES: usize = 8;

/// Appends `value`, which must be below 2⁶², in the fewest bytes.
pub(crate) fn put(buffer: &mut impl BufMut, value: u64) {
    debug_assert!(value < 1 << 62, "{value} does not fit a variable-length integer");
    match value {
        0..0x40 => buffer.put_u8(value as u8),
        0x40..0x4000 => buffer.put_u16(0x4000 | value as u16),
        0x4000..0x4000_0000 => buffer.put_u32(0x8000_0000 | value as u32),
        _ => buffer.put_u64(0xc000_0000_0000_0000 | value),
    }
}

/// The integer at the head of `bytes` and the bytes that it took; `None` while it is not complete.
pub(crate) fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte));
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_a_1_are_read() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(get(bytes), Some((value, bytes.len())));
            assert_eq!(get(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn what_is_put_is_got_in_the_fewest_bytes() {
        for (value, length) in
            [(0, 1), (63, 1), (64, 2), (16_383, 2), (16_384, 4), ((1 << 30) - 1, 4), (1 << 30, 8), ((1 << 62) - 1, 8)]
        {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            assert_eq!(get(&buffer), Some((value, length)));
        }
    }
}

//! Hexadecimal as ptdump prints it, eight digits at a time: each byte of a word is one digit.

const ONES: u64 = 0x0101_0101_0101_0101;

/// The digits `0` to `f` of eight nibbles, one in each byte.
const fn digits(nibbles: u64) -> u64 {
    let letters = ((nibbles + 6 * ONES) >> 4) & ONES;
    nibbles + 0x30 * ONES + letters * 0x27
}

/// Eight lower-case digits, most significant first.
const fn digits_of(value: u32) -> [u8; 8] {
    let mut x = value as u64;
    x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    digits(x).to_be_bytes()
}

/// The value of eight lower-case digits; `None` if any byte is something else.
const fn value_of(text: [u8; 8]) -> Option<u32> {
    let x = u64::from_be_bytes(text);
    let mut v = (x & (0x0f * ONES)) + ((x >> 6) & ONES) * 9;
    if v & (0xf0 * ONES) != 0 || digits(v) != x {
        return None;
    }
    v = (v | v >> 4) & 0x00ff_00ff_00ff_00ff;
    v = (v | v >> 8) & 0x0000_ffff_0000_ffff;
    Some((v | v >> 16) as u32)
}

/// `0x%016lx` into 18 bytes.
pub fn put_hex(out: &mut [u8], value: u64) {
    out[..2].copy_from_slice(b"0x");
    out[2..10].copy_from_slice(&digits_of((value >> 32) as u32));
    out[10..18].copy_from_slice(&digits_of(value as u32));
}

/// The value of 18 bytes that `put_hex` writes; `None` for all others.
pub fn hex(text: &[u8]) -> Option<u64> {
    let (prefix, digits) = text.split_first_chunk::<2>()?;
    let (high, low) = digits.split_first_chunk::<8>()?;
    let (high, low) = (value_of(*high)?, value_of(low.try_into().ok()?)?);
    (prefix == b"0x").then_some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::{hex, put_hex};

    fn printed(value: u64) -> [u8; 18] {
        let mut text = [0; 18];
        put_hex(&mut text, value);
        text
    }

    #[test]
    fn every_byte_in_every_place_is_a_digit_or_refused() {
        for place in 2..18 {
            for byte in 0..=255u8 {
                let mut text = printed(0x0123_4567_89ab_cdef);
                text[place] = byte;
                let expected =
                    std::str::from_utf8(&text[2..]).ok().filter(|_| !byte.is_ascii_uppercase() && byte != b'+');
                let expected = expected.and_then(|t| u64::from_str_radix(t, 16).ok());
                assert_eq!(hex(&text), expected, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn what_is_printed_is_read_back_and_looks_as_the_standard_library_prints_it() {
        for value in [0, 1, u64::MAX, 0xffff_fc00_0000_0000, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210] {
            assert_eq!(printed(value), format!("{value:#018x}").as_bytes());
            assert_eq!(hex(&printed(value)), Some(value));
        }
        assert_eq!(hex(b"0X0000000000000000"), None);
        assert_eq!(hex(b"0x000000000000000"), None);
        assert_eq!(hex(b"0x00000000000000000"), None);
    }
}

//! Generates ids in the format of the real services. They imitate the format only and are not secrets.

use rand::Rng;
use rand::distr::Alphanumeric;

/// Returns `length` random characters of `0-9A-Za-z`.
pub(crate) fn base62(rng: &mut impl Rng, length: usize) -> String {
    rng.sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

/// Returns a prefix followed by `length` random characters, such as `cus_9s6XKzkNRiz8i3`.
pub(crate) fn prefixed(prefix: &str, length: usize) -> String {
    format!("{prefix}{}", base62(&mut rand::rng(), length))
}

/// Returns a random UUID (version 4).
pub(crate) fn uuid() -> String {
    let bits: u128 = rand::rng().random();
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_version_four_and_its_variant() {
        let id = uuid();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}

//! Until when a certificate is valid: the one thing operators need of it that rustls keeps to itself.
//!
//! Just enough DER to walk to that field (RFC 5280, 4.1), never past the bytes at hand. Whether the
//! rest of the certificate is sound is not asked here.

use super::expiry::unix_day;

const SEQUENCE: u8 = 0x30;
/// The version, `[0]`, which may be left out.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The Unix second at which the certificate ends; `None` where that cannot be read.
pub(super) fn expires_unix_s(certificate: &[u8]) -> Option<i64> {
    let certificate = Der(certificate).enter(SEQUENCE)?.enter(SEQUENCE)?;
    let mut fields = certificate;
    if fields.0.first() == Some(&VERSION) {
        fields.skip()?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields.skip()?;
    }
    let mut validity = fields.enter(SEQUENCE)?;
    validity.skip()?;
    let (tag, text) = validity.next()?;
    time(tag, text)
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Der<'b>(&'b [u8]);

impl<'b> Der<'b> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'b [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            // No certificate is 16 MiB long.
            if bytes.is_empty() || bytes.len() > 3 {
                return None;
            }
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = after;
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn skip(&mut self) -> Option<()> {
        self.next().map(|_| ())
    }

    /// The content of the next element, which must have this tag.
    fn enter(mut self, wanted: u8) -> Option<Self> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| Self(content))
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`: certificates write no other form.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let year_digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    let digits = text.strip_suffix(b"Z")?;
    if digits.len() != year_digits + 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0_u16, |number, digit| number * 10 + u16::from(digit - b'0'));
    let (year, rest) = digits.split_at(year_digits);
    let year = match (tag, number(year)) {
        (UTC_TIME, year @ 50..) => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (_, year) => year,
    };
    let part = |index: usize| number(&rest[2 * index..2 * index + 2]);
    let day = unix_day(year.into(), part(0).into(), part(1).into())?;
    Some(day * 86_400 + i64::from(part(2)) * 3600 + i64::from(part(3)) * 60 + i64::from(part(4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate that ends with the first second of `year`.
    fn until(year: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("rcgen makes keys");
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(1999, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&key).expect("rcgen can sign").der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_either_form() {
        let check = |year: i32, expected: i64| assert_eq!(expires_unix_s(&until(year)), Some(expected), "{year}");
        check(2000, 946_684_800);
        check(2027, 1_798_761_600);
        // From 2050 on with four digits.
        check(2049, 2_493_072_000);
        check(2050, 2_524_608_000);
        check(9999, 253_370_764_800);
    }

    #[test]
    fn whatever_is_cut_off_is_no_time_and_no_panic() {
        let whole = until(2027);
        let most = 200;
        for length in 0..most {
            assert_eq!(expires_unix_s(&whole[..length]), None, "{length} bytes");
        }
        for (at, value) in (0..most).flat_map(|at| [0, 0x80, 0x84, 0xff].map(|value| (at, value))) {
            let mut bent = whole.clone();
            bent[at] = value;
            expires_unix_s(&bent);
        }
    }

    #[test]
    fn times_that_do_not_exist_are_none() {
        let check = |tag, text: &str, expected| assert_eq!(time(tag, text.as_bytes()), expected, "{text}");
        check(UTC_TIME, "700101000000Z", Some(0));
        check(GENERALIZED_TIME, "19700102000001Z", Some(86_401));
        check(UTC_TIME, "700230000000Z", None);
        check(UTC_TIME, "7001010000Z", None);
        check(UTC_TIME, "700101000000+0100", None);
        check(0x04, "700101000000Z", None);
    }
}

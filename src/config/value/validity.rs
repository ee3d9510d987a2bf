//! Until when a certificate is valid: the one field of it that operators need and rustls does not expose.
//!
//! Elements and times are read by the `der` and `x509-cert` crates. Whether the certificate is well formed and can
//! be trusted is not checked here: what rustls serves is not refused for a field that nobody here needs.

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Class, Decode, Error, SliceReader, Tagged};
use x509_cert::time::Time;

/// The Unix second at which the certificate ends; `None` where that cannot be read.
pub fn expires_unix_s(certificate: &[u8]) -> Option<i64> {
    let not_after = not_after(certificate).ok()?;
    i64::try_from(not_after.to_unix_duration().as_secs()).ok()
}

/// `notAfter` of a certificate in DER; the order of fields is that of RFC 5280, section 4.1.
fn not_after(certificate: &[u8]) -> Result<Time, Error> {
    let certificate = AnyRef::from_der(certificate)?;
    let signed = AnyRef::decode(&mut SliceReader::new(certificate.value())?)?;
    let mut fields = SliceReader::new(signed.value())?;
    let first = AnyRef::decode(&mut fields)?;
    // The version may be left out; then the serial number comes first.
    if first.tag().class() == Class::ContextSpecific {
        AnyRef::decode(&mut fields)?;
    }
    let (_signature, _issuer) = (AnyRef::decode(&mut fields)?, AnyRef::decode(&mut fields)?);
    let validity = AnyRef::decode(&mut fields)?;
    let mut validity = SliceReader::new(validity.value())?;
    let _not_before = AnyRef::decode(&mut validity)?;
    Time::decode(&mut validity)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate that ends with the first second of `year`.
    fn until(year: i32) -> Vec<u8> {
        valid(1999, year)
    }

    fn valid(from: i32, year: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("rcgen makes keys");
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
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
    fn the_beginning_does_not_matter() {
        for from in [1950, 1969, 1970, 2026] {
            assert_eq!(expires_unix_s(&valid(from, 2027)), Some(1_798_761_600), "{from}");
        }
    }

    #[test]
    fn times_that_do_not_exist_are_none() {
        let check = |year: i32, from: &str, to: &str, expected: Option<i64>| {
            let mut certificate = until(year);
            let at = certificate.windows(from.len()).rposition(|window| window == from.as_bytes());
            let at = at.expect("the end is in the certificate");
            certificate[at..at + to.len()].copy_from_slice(to.as_bytes());
            assert_eq!(expires_unix_s(&certificate), expected, "{to}");
        };
        check(2027, "270101000000Z", "700101000000Z", Some(0));
        check(2027, "270101000000Z", "270228000000Z", Some(1_803_772_800));
        check(2027, "270101000000Z", "270230000000Z", None);
        check(2027, "270101000000Z", "2701010000+01", None);
        // Four digits where two would do.
        check(2050, "20500101000000Z", "20270101000000Z", Some(1_798_761_600));
        // Another tag than that of a time.
        check(2027, "\u{17}\u{d}270101000000Z", "\u{4}\u{d}270101000000Z", None);
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
}

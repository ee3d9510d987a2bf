//! Until when a certificate is valid: the one field of it that operators need and rustls does not expose.
//!
//! The parser is x509-cert's. Whether the certificate can be trusted is not checked here.

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

/// The Unix second at which the certificate ends; `None` where that cannot be read.
///
/// The profile is `Raw`: a certificate that rustls can serve is not refused for a serial number that
/// RFC 5280 does not allow.
pub(super) fn expires_unix_s(certificate: &[u8]) -> Option<i64> {
    let certificate = CertificateInner::<Raw>::from_der(certificate).ok()?;
    let not_after = certificate.tbs_certificate().validity().not_after;
    i64::try_from(not_after.to_unix_duration().as_secs()).ok()
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
}

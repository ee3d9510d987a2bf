//! The encodings of a secret in which it could appear in an output.
//!
//! Start reading at [`spellings`]; tests that scan for secrets search for these.

/// `secret` in every encoding in which it could appear.
pub fn spellings(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let each = |format: fn(&u8) -> String, between: &str| bytes.iter().map(format).collect::<Vec<_>>().join(between);
    let mut spellings = vec![
        secret.to_owned(),
        secret.chars().rev().collect(),
        each(|byte| format!("{byte:02x}"), ""),
        each(|byte| format!("{byte:02X}"), ""),
        each(|byte| format!("%{byte:02x}"), ""),
        each(|byte| format!("%{byte:02X}"), ""),
        each(|byte| format!("\\x{byte:02x}"), ""),
        each(|byte| byte.to_string(), ", "),
        // As a URL path or a query escapes it.
        secret.replace('-', "%2D").replace('_', "%5F"),
    ];
    // In base64 a text has a different form at each of three offsets; both ends depend on adjacent bytes.
    for lead in 0..3 {
        let padded = [&vec![0; lead][..], bytes].concat();
        let encoded = base64(&padded);
        let whole = encoded.len() - 4;
        spellings.push(encoded[4 * usize::from(lead > 0)..whole].to_owned());
        spellings.push(encoded[4 * usize::from(lead > 0)..whole].replace('+', "-").replace('/', "_"));
    }
    spellings
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift) as usize & 63]))
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[test]
fn every_spelling_is_recognised() {
    assert_eq!(base64(b"Man"), "TWFu");
    // As base64 programs print "key=swordfish!", "xkey=…" and "xxkey=…".
    for text in ["a2V5PXN3b3JkZmlzaCE=", "eGtleT1zd29yZGZpc2gh", "eHhrZXk9c3dvcmRmaXNoIQ=="] {
        assert!(spellings("swordfish").iter().any(|spelling| text.contains(spelling)), "{text}");
    }
    for text in ["73776F726466697368", "%73%77%6f%72%64%66%69%73%68", "[115, 119, 111, 114, 100, 102, 105, 115, 104]"] {
        assert!(spellings("swordfish").iter().any(|spelling| text.contains(spelling)), "{text}");
    }
}

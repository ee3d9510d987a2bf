//! A certificate chain and its private key, and the certificates of authorities, all as PEM.
//!
//! A value of these types could be read; whether chain and key belong together is checked where `[server.tls]` is
//! compiled. No message here may hold a byte of a file.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use super::validity;
use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};

/// A server's certificate and its intermediates, in that order; never empty.
pub(in crate::config) struct CertificateChain {
    pub(in crate::config) certificates: Vec<CertificateDer<'static>>,
    /// From this Unix second on no client trusts the first of them.
    pub(in crate::config) expires_unix_s: i64,
}

/// The certificates of the authorities that a host's certificate may come from; never empty.
pub(in crate::config) struct CaFile(pub(in crate::config) Arc<[CertificateDer<'static>]>);

/// The private key of a certificate, ready to sign.
pub(in crate::config) struct PrivateKey(pub(in crate::config) Arc<dyn SigningKey>);

impl CertificateChain {
    fn parse(pem: &str) -> Result<Self, ValueError> {
        const HINT: &str = "point to the whole chain as PEM, the server's own certificate first: `fullchain.pem` of \
                            certbot, `tls.crt` of Kubernetes";
        let error = |message| ValueError::hinting(message, HINT);
        let certificates = certificates(pem).map_err(error)?;
        let first = &certificates[0];
        let readable = ParsedCertificate::try_from(first).ok().and_then(|_| validity::expires_unix_s(first));
        let expires_unix_s = readable.ok_or_else(|| error("holds a certificate that cannot be read"))?;
        Ok(Self { certificates, expires_unix_s })
    }
}

impl CaFile {
    fn parse(pem: &str) -> Result<Self, ValueError> {
        const HINT: &str = "point to the certificate of the authority as PEM, several one after the other: `ca.crt` of \
                            Kubernetes, `ca.pem` of most tools";
        let error = |message| ValueError::hinting(message, HINT);
        let certificates = certificates(pem).map_err(error)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|_| error("holds a certificate that cannot be read"))?;
        }
        Ok(Self(certificates.into()))
    }
}

/// Every certificate of a file, at least one; the error is what is wrong with it.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = read.map_err(|_| "is not PEM")?;
    if certificates.is_empty() { Err("holds no certificate") } else { Ok(certificates) }
}

impl PrivateKey {
    fn parse(pem: &str) -> Result<Self, ValueError> {
        if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || pem.contains("Proc-Type: 4,ENCRYPTED") {
            let hint =
                "write it without its passphrase, readable by the gateway alone: `openssl pkey -in KEY -out PLAIN`";
            return Err(ValueError::hinting("holds an encrypted private key", hint));
        }
        let error = |message| {
            let hint = "point to one private key as PEM, RSA, ECDSA or Ed25519: `privkey.pem` of certbot, `tls.key` of \
                        Kubernetes";
            ValueError::hinting(message, hint)
        };
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| error("holds no private key"))?;
        let key = any_supported_type(&key).map_err(|_| error("holds a private key of a kind that cannot be used"))?;
        Ok(Self(key))
    }
}

/// What is written as a reference to a file alone, read by `parse`, and never shown.
macro_rules! of_file {
    ($type:ty) => {
        impl SettingValue for $type {
            const EXPECTED: &'static str = "\"file:/path\"";
            const SECRET: bool = true;

            fn shape() -> SettingShape {
                SettingShape::Reference
            }

            fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
                Self::parse(&file_text(value_ref)?)
            }

            fn show(&self) -> DisplayValue {
                DisplayValue::Masked
            }
        }
    };
}

of_file!(CertificateChain);
of_file!(CaFile);
of_file!(PrivateKey);

/// The text of a file, which may have many lines.
fn file_text(value_ref: &ConfigValueRef<'_>) -> Result<Zeroizing<String>, ValueError> {
    if !value_ref.is_reference() && value_ref.value().is_str() {
        return Err(ValueError::new("the text of a file may not be written out here"));
    }
    value_ref.text().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("rcgen can sign")
    }

    fn refused<T>(read: Result<T, ValueError>) -> String {
        read.err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn a_chain_is_read_in_its_order() {
        let (one, two) = (issued(), issued());
        let chain = CertificateChain::parse(&(one.cert.pem() + &two.cert.pem())).expect("it is a chain");
        assert_eq!(chain.certificates, [one.cert.der().clone(), two.cert.der().clone()]);
    }

    #[test]
    fn what_holds_no_certificate_is_refused() {
        let key = issued().signing_key.serialize_pem();
        let check = |pem: &str, expected: &str| assert_eq!(refused(CertificateChain::parse(pem)), expected, "{pem}");
        check("hello", "holds no certificate");
        check(&key, "holds no certificate");
        check("-----BEGIN CERTIFICATE-----\nMIIB\n", "is not PEM");
        check(
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "holds a certificate that cannot be read",
        );
    }

    #[test]
    fn every_authority_of_a_file_is_read() {
        let (one, two) = (issued(), issued());
        let read = CaFile::parse(&(one.cert.pem() + &two.cert.pem())).expect("these are certificates");
        assert_eq!(*read.0, [one.cert.der().clone(), two.cert.der().clone()]);
        let check = |pem: &str, expected: &str| assert_eq!(refused(CaFile::parse(pem)), expected, "{pem}");
        check("hello", "holds no certificate");
        check(&one.signing_key.serialize_pem(), "holds no certificate");
        let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        check(&(one.cert.pem() + broken), "holds a certificate that cannot be read");
    }

    #[test]
    fn what_holds_no_usable_key_is_refused() {
        let issued = issued();
        assert!(PrivateKey::parse(&issued.signing_key.serialize_pem()).is_ok());
        let check = |pem: &str, expected: &str| assert_eq!(refused(PrivateKey::parse(pem)), expected, "{pem}");
        check("hello", "holds no private key");
        check(&issued.cert.pem(), "holds no private key");
        let pem = |label: &str| format!("-----BEGIN {label}-----\nMIIB\n-----END {label}-----\n");
        check(&pem("PRIVATE KEY"), "holds a private key of a kind that cannot be used");
        check(&pem("ENCRYPTED PRIVATE KEY"), "holds an encrypted private key");
    }
}

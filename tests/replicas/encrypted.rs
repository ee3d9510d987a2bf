//! A server that is reached by TLS, and its certificate.

use crate::place::Place;
use crate::postgres_server::{PostgresServer, TestDatabase};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::net::TcpListener;
use std::sync::Arc;

/// The certificate of a new authority, and one of it for a server called `localhost` with its key, as PEM.
pub fn certificates() -> (String, String, String) {
    let mut of_authority = CertificateParams::new(Vec::new()).expect("no names are valid");
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("the system gives random bytes");
    let authority = of_authority.self_signed(&authority_key).expect("rcgen can sign");
    let issuer = Issuer::new(of_authority, authority_key);
    let key = KeyPair::generate().expect("the system gives random bytes");
    let of_server = CertificateParams::new(vec!["localhost".to_owned()]).expect("it is a name");
    let of_server = of_server.signed_by(&key, &issuer).expect("rcgen can sign");
    (authority.pem(), of_server.pem(), key.serialize_pem())
}

#[test]
fn the_server_is_verified_by_its_name_and_its_authority() {
    let server = Arc::new(PostgresServer::start());
    let (database, place) = (TestDatabase::on(server.clone()), Place::new());
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let (authority, certificate, key) = certificates();
    server.start_again_encrypted(port, &certificate, &key);
    place.write("ca.pem", &authority);
    let ca = place.path("ca.pem").display().to_string();
    let url =
        |host: &str, parameters: &str| format!("postgres://tierway@{host}:{port}/{}?{parameters}", database.name());
    let verified = url("localhost", &format!("sslmode=verify-full&sslrootcert={ca}"));
    assert!(place.printed(&["migrate", "--store", &verified]).contains("applied"));
    let check = |url: String, expected: &str| {
        let message = place.refused(&["usage", "--store", &url], 69);
        assert!(message.contains(expected), "{url}: {message}");
    };
    check(url("localhost", "sslmode=verify-full"), "UnknownIssuer");
    check(url("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ca}")), "not valid for name");
    check(url("localhost", "sslmode=disable"), "no encryption");
}

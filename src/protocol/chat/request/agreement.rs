//! That a body passes here exactly when another reader of JSON takes it: on a list of cases that
//! readers are known to differ over, on bodies spoiled at random, and on any bytes.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::read_request;
use super::tests::body;
use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Endpoint};

/// Checks that a body passes exactly when another reader of JSON takes it, half surrogates and
/// depth aside, which that one overlooks in what it skips.
fn agrees_with_another_reader(body: &[u8]) {
    let shown = body.escape_ascii();
    let object =
        |text: &str| serde_json::from_str::<HashMap<String, IgnoredAny>>(text).map_err(|error| error.to_string());
    let text = std::str::from_utf8(body).map_err(|error| error.to_string());
    let skipping = text.clone().and_then(object);
    let whole = text.and_then(|text| serde_json::from_str::<Value>(text).map_err(|error| error.to_string()));
    match read_request(Endpoint::Embeddings, Bytes::copy_from_slice(body), &ListedMembers::default()) {
        Err(BodyProblem::NotJson(said)) if said.contains("levels") || said.contains("surrogate") => {
            assert!(whole.is_err(), "{shown}: {said}");
        }
        Err(BodyProblem::NotJson(said)) => assert!(skipping.is_err(), "{shown}: {said}"),
        Err(BodyProblem::BadField { .. }) | Ok(_) => {
            assert!(skipping.is_ok(), "{shown}: {skipping:?}");
            // It must make a number of every number, and stops one level earlier.
            let beyond = |error: &String| error.contains("out of range") || error.contains("recursion");
            assert!(whole.as_ref().err().is_none_or(beyond), "{shown}: {whole:?}");
        }
        Err(other) => panic!("{shown}: {other:?}"),
    }
}

#[test]
fn nasty_bodies_are_taken_as_another_reader_takes_them() {
    for nasty in NASTY {
        agrees_with_another_reader(nasty);
        for (before, after) in [
            (&br#"{"x":"#[..], &b"}"[..]),
            (br#"{"model":"#, br#","input":[1]}"#),
            (br#"{"model":"m","input":["#, b"]}"),
            (br#"{"model":"m","x":[{"y":"#, br#"}, "a long text behind it, longer than a block"]}"#),
            (b"{", b":1}"),
            (br#"{"x":[]"#, b"}"),
            (br#"{"x":[]}"#, b""),
        ] {
            agrees_with_another_reader(&[before, nasty, after].concat());
        }
    }
}

/// Values that readers of JSON are known to differ over.
#[rustfmt::skip]
const NASTY: &[&[u8]] = &[
    // numbers
    b"0", b"-0", b"00", b"-01", b"-", b"--1", b"+1", b".5", b"5.", b"-.5", b"1.e1", b"1e", b"1e+", b"1E-", b"1e+-1",
    b"1e5.5", b"0e0", b"0E+00", b"0.0e-0", b"1e99999", b"-1e-99999", b"0x10", b"1_000", b"1 2", b"Infinity", b"-NaN",
    b"123456789012345678901234567890.1", b"\xef\xbc\x91", b"1\0", b"2.", b"1eE2", b"1-1",
    // words
    b"true", b"tru", b"truee", b"True", b"nul", b"nulll", b"undefined", b"fals", b"false1", b"t", b"n", b"f",
    // strings
    br#""""#, br#"""#, br#""a"#, br#""\"#, br#""\"#, br#""\""#, br#""\\""#, br#""\\\""#, br#""\x41""#, br#""\'""#, br#""\0""#,
    br#""\u""#, br#""\u0""#, br#""\u00""#, br#""\u004""#, br#""\u0041""#, br#""\u00G1""#, br#""\u+041""#, br#""\U0041""#,
    br#""\u 041""#, br#""\u0000""#, br#""\ud83d\ude00""#, br#""\ud83d\ud83d""#, br#""\ude00\ud83d""#, br#""\ud83d""#,
    br#""\ud83dx""#, br#""\ud83d\n""#, br#""\ud83d\u004""#, br#""\uDBFF\uDFFF""#, br#""\ud800\ue000""#, br#"'a'"#, br#""a" "b""#,
    b"\"\t\"", b"\"\n\"", b"\"\0\"", b"\"\x1f\"", b"\"\x7f\"", b"\"\\\n\"", b"\"\\", b"\"\xc3\xa9\"", b"\"\xe2\x80\xa8\"",
    // bytes that are no UTF-8
    b"\"\xff\"", b"\"\xc3\"", b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"\"\xf4\x90\x80\x80\"", b"\"\xe9\"", b"\xff", b"\"\\\xe9\"",
    // lists and objects
    b"[]", b"[ ]", b"[", b"]", b"[1", b"[1,", b"[,]", b"[,1]", b"[1,]", b"[1,,2]", b"[1 2]", b"[1;2]", b"[1:2]", b"[}", b"{]", b"[]]",
    b"[[]", b"{}", b"{ }", b"{", b"}", b"{1:2}", b"{a:1}", b"{'a':1}", br#"{"a"}"#, br#"{"a":}"#, br#"{"a" 1}"#, br#"{"a":1,}"#,
    br#"{,"a":1}"#, br#"{"a":1 "b":2}"#, br#"{"a":1,,"b":2}"#, br#"{"a"::1}"#, br#"{"a":1;"b":2}"#, br#"{"a","b"}"#, br#"{null:1}"#,
    br#"{"a":1,"a":2}"#, br#"{"":1}"#, br#"{"\u0000":1}"#, br#"{"\ud800":1}"#, br#"[{"a":[{"b":[]}]}]"#, br#"{"a":[}]"#,
    // around
    b"", b" ", b"//\n1", b"/**/1", b"1#", b"\x0c1", b"\x0b1", b"\xc2\xa01", b"\xef\xbb\xbf1", b"\xe2\x81\xa01", b"\t\r\n 1 \t\r\n", b"*", b"@",
];

/// What may spoil JSON, or become a part of it.
fn spoil() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "", "\"", "\\", "\\u", "\\ud83d", "\\ude00", "{", "}", "[", "]", ",", ":", " ", "\n", "0", "1", "-", ".", "e",
        "+", "true", "null", "\"a\"", "\"a\":", "\u{1f}", "é",
    ];
    let piece = prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec());
    prop_oneof![4 => piece, 1 => any::<u8>().prop_map(|byte| vec![byte])]
}

proptest! {
    #[test]
    fn spoiled_bodies_are_taken_as_another_reader_takes_them(
        (body, _) in body(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, spoil()), 0..4),
    ) {
        let mut body = body.into_bytes();
        for (at, removed, put) in spoils {
            let at = at.index(body.len() + 1);
            body.splice(at..body.len().min(at + removed), put);
        }
        agrees_with_another_reader(&body);
    }

    #[test]
    fn bytes_are_taken_as_another_reader_takes_them(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        likely in prop::collection::vec(spoil(), 0..30),
    ) {
        agrees_with_another_reader(&bytes);
        agrees_with_another_reader(&[b"{\"x\":", &likely.concat()[..], b"}"].concat());
    }
}

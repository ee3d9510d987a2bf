//! What the fuzzer found worth keeping, tried again: every file of `fuzz/corpus/` through the property
//! of its target. `make fuzz` looks for more.
//!
//! Start reading in [`properties::TARGETS`].

mod properties;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

#[test]
fn every_input_of_the_corpus_keeps_its_property() {
    for (name, holds) in properties::TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        for input in inputs {
            let data = fs::read(&input).expect("the corpus can be read");
            assert!(catch_unwind(|| holds(&data)).is_ok(), "{}", input.display());
        }
    }
}

#[test]
fn every_stream_of_the_corpus_reads_the_same_at_every_cut() {
    for input in corpus("sse") {
        properties::sse::holds_at_every_cut(&fs::read(&input).expect("the corpus can be read"));
    }
}

#[test]
fn every_target_has_its_program() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut found: Vec<String> =
        files(&programs).iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect();
    found.sort_unstable();
    assert_eq!(found, properties::TARGETS.map(|(name, _)| name));
}

fn corpus(target: &str) -> Vec<PathBuf> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort_unstable();
    files
}

/// Streams made of the pieces that matter, and now and then of any byte; then the sizes of their chunks.
fn cut_stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            &b"\n"[..], b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"data:", b"data: ", b"event: ",
            b"data", b"[DONE]", b":", b" ", b"id: 1", b"\xEF\xBB\xBF", b"\xEF", b"{}",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    let pieces = prop::collection::vec(piece, 0..40);
    let sizes = prop::collection::vec(1..9_u8, 1..40);
    (pieces, sizes).prop_map(|(pieces, sizes)| [&pieces.concat()[..], b"\0", &sizes].concat())
}

proptest! {
    #[test]
    fn any_stream_reads_the_same_however_it_is_cut(data in cut_stream()) {
        properties::hold("sse", &data);
    }
}

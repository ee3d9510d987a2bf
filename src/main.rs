//! The `tierway` binary: hands everything to [`tierway::cli`].

fn main() {}

//! Says whether the page of the dashboard was built, so that it is compiled in: `make dashboard` writes `dashboard/dist`.
//!
//! A build without it needs no Node, and the page then says how to build it.

use std::path::Path;

/// What the page is made of, each with its compressed form beside it.
const FILES: [&str; 4] = ["index.html", "dashboard.css", "dashboard.js", "dashboard.svg"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(dashboard_is_built)");
    println!("cargo::rerun-if-changed=dashboard/dist");
    let dist = Path::new("dashboard/dist");
    let is_built = FILES.iter().all(|file| dist.join(file).is_file() && dist.join(format!("{file}.gz")).is_file());
    if is_built {
        println!("cargo::rustc-cfg=dashboard_is_built");
    }
}

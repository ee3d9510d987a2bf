//! `tierway prices import`: an operator's catalogue, checked as a whole and then written in one step.
//!
//! A running gateway must never read a part of it: it is written under another name and renamed.

use super::{PricesImportArgs, current, path_beside, usage};
use crate::cli::context::note;
use crate::cli::print;
use crate::config::PriceCatalogue;
use anyhow::Context;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(super) fn import(args: &PricesImportArgs) -> anyhow::Result<ExitCode> {
    let from = args.file.display();
    let text = fs::read_to_string(&args.file).with_context(|| format!("cannot read {from}"))?;
    let catalogue = PriceCatalogue::of_file(text.clone(), &args.file).and_then(|catalogue| {
        let catalogue = catalogue.over(PriceCatalogue::built_in());
        catalogue.check()?;
        Ok(catalogue)
    });
    let catalogue = catalogue.map_err(|error| anyhow::anyhow!("{from}: {error}; nothing was changed"))?;
    let Some(path) = path_beside(&args.config_args)? else {
        return Ok(usage("there is no configuration for the catalogue to lie beside: write one with `tierway init`"));
    };
    let as_of = catalogue.as_of();
    // What is there may be broken; that must not keep a good one out.
    if let Ok(before) = current(&args.config_args)
        && as_of.unix_ms < before.as_of().unix_ms
    {
        note(&format!("warning: it is of {}, and the one in use was of {}", as_of.text, before.as_of().text));
    }
    write_whole(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    print(&format!("{}\n", path.display()))?;
    note(&format!("prices of {}; a running gateway takes them within seconds", as_of.text));
    Ok(ExitCode::SUCCESS)
}

/// Writes `text` to `path`: a reader finds what was there before, or all of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let beside: PathBuf = path.with_file_name(name);
    let written = OpenOptions::new().write(true).create_new(true).open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let written = written.and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It may not even be there; the first error is the one to report.
        let _ = fs::remove_file(&beside);
    }
    written
}

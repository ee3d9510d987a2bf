//! `tierway keys import`: imports keys with existing secrets, from CSV or JSON Lines.
//!
//! A secret is hashed as soon as it is read, and messages never repeat a cell: it might be a secret in the wrong
//! column. All rows are imported, or none; every invalid row is reported by its line.
//!
//! Start reading at [`import`].

use super::super::context::{CliContext, KNOWN_SOON, command_error, note};
use super::super::store::{CommandError, StoreArgs};
use super::super::table::grouped;
use super::super::value_parsers::{ExpiryTime, budget};
use super::rows::{COLUMNS, ImportFields, ImportRow, rows};
use crate::admin::{AdminError, NewKey};
use crate::clock::Clock;
use crate::domain::limit::Limits;
use crate::domain::register::KeyOverrides;
use crate::domain::secret::{KeyHash, Secret};
use clap::Args;
use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub(super) const EXAMPLES: &str = "The columns of CSV, and the members of each JSON object, in any order:
  name, policy    required
  secret, hash    one of them; a hash is sha256: and 64 hex digits
  team, requests_per_minute, tokens_per_minute, max_concurrent, budget, expires
                  as `tierway keys create` takes them

Examples:
  tierway keys import keys.csv --dry-run
  printf 'name,policy,hash\\nold-app,standard,sha256:%s\\n' \"$(printf %s \"$KEY\" | sha256sum | cut -c1-64)\" |
    tierway keys import -";

/// Maximum number of rows reported as invalid.
const MAX_REPORTED: usize = 100;

/// Arguments of `keys import`.
#[derive(Args, Debug)]
pub(in crate::cli) struct KeysImportArgs {
    /// CSV with a header, or JSON Lines; - reads stdin
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Only say what is wrong with it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Imports the keys of a file.
pub(super) fn import(args: &KeysImportArgs) -> Result<String, CommandError> {
    let started = Clock.now();
    let text = text(&args.file)?;
    let context = match args.dry_run {
        true => CliContext::open_to_read(&args.store)?,
        false => CliContext::open(&args.store, "keys import")?,
    };
    let (lines, new) = read(&text)?;
    drop(text);
    let problems = context.admin.check_import(&context.snapshot, &new);
    refuse(problems.into_iter().map(|(at, error)| (line(&lines, at), error.to_string())).collect())?;
    let count = grouped(new.len() as u128);
    if args.dry_run {
        return Ok(format!("{count} keys can be imported\n"));
    }
    note(&format!("read {count} keys in {:.1?}; writing them", Clock.now() - started));
    let written = context.block_on(context.admin.import_keys(&context.snapshot, new));
    written.map_err(|(at, error)| match error {
        AdminError::Unavailable => command_error(error),
        // Another command created one of them meanwhile.
        error => only(line(&lines, at), &error),
    })?;
    note(&format!("done in {:.1?}; {KNOWN_SOON}", Clock.now() - started));
    Ok(format!("imported {count} keys\n"))
}

fn text(file: &Path) -> Result<Zeroizing<String>, CommandError> {
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).map(drop)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)).map(drop)
    };
    read.map_err(|error| CommandError::failed(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text)
}

/// The keys of `text`, and the line of each.
fn read(text: &str) -> Result<(Vec<usize>, Vec<NewKey>), CommandError> {
    let now = Clock.unix_ms();
    let mut problems = Vec::new();
    let (mut lines, mut new) = (Vec::new(), Vec::new());
    let (mut names, mut secrets) = (HashMap::new(), HashMap::new());
    for ImportRow { line, cells } in rows(text).map_err(|(line, why)| only(line, &why))? {
        let key = match cells.and_then(|cells| key(&cells, now)) {
            Ok(key) => key,
            Err(why) => {
                problems.push((line, why));
                continue;
            }
        };
        if let Some(first) = names.insert(key.name.clone(), line) {
            problems.push((line, format!("name: line {first} has it too")));
        } else if let Some(first) = key.hash.and_then(|hash| secrets.insert(hash, line)) {
            problems
                .push((line, format!("the key of line {first} has this secret too; every key needs one of its own")));
        }
        lines.push(line);
        new.push(key);
    }
    refuse(problems)?;
    Ok((lines, new))
}

/// The key that a row describes.
fn key(cells: &ImportFields, now_unix_ms: i64) -> Result<NewKey, String> {
    let cell = |name: &str| {
        let at = COLUMNS.iter().position(|column| *column == name)?;
        cells.get(at)?.as_deref().map(|text| text.as_str()).filter(|text| !text.is_empty())
    };
    let required = |name: &str| cell(name).map(str::to_owned).ok_or_else(|| format!("{name}: is missing"));
    let limits = Limits {
        requests_per_minute: number(cell("requests_per_minute"), "requests_per_minute")?,
        tokens_per_minute: number(cell("tokens_per_minute"), "tokens_per_minute")?,
        max_concurrent: number(cell("max_concurrent"), "max_concurrent")?,
    };
    let budget = cell("budget").map(budget).transpose().map_err(|why| format!("budget: {why}"))?;
    let expires = cell("expires").map(ExpiryTime::parse).transpose().map_err(|why| format!("expires: {why}"))?;
    Ok(NewKey {
        name: required("name")?,
        policy: required("policy")?,
        team: cell("team").map(str::to_owned),
        own: KeyOverrides { limits, budget },
        expires: expires.map(|end| end.unix(now_unix_ms)),
        hash: Some(hash(cell("secret"), cell("hash"))?),
    })
}

fn number<N: std::str::FromStr>(text: Option<&str>, name: &str) -> Result<Option<N>, String> {
    text.map(|text| text.parse().map_err(|_| format!("{name}: is a whole number above 0"))).transpose()
}

fn hash(secret: Option<&str>, hash: Option<&str>) -> Result<KeyHash, String> {
    match (secret, hash) {
        (Some(secret), None) if Secret::is_presentable(secret) => Ok(KeyHash::of(secret)),
        (Some(_), None) => {
            Err("secret: has blanks or `Bearer` before or after it, or characters other than ASCII".to_owned())
        }
        (None, Some(hash)) => {
            let hash = hash.strip_prefix("sha256:").and_then(KeyHash::from_hex);
            hash.ok_or_else(|| "hash: write sha256: and 64 hex digits".to_owned())
        }
        _ => Err("write one of secret and hash".to_owned()),
    }
}

fn line(lines: &[usize], at: usize) -> usize {
    lines.get(at).copied().unwrap_or_default()
}

/// Fails with every problem, if there is one.
fn refuse(mut problems: Vec<(usize, String)>) -> Result<(), CommandError> {
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort_by_key(|(line, _)| *line);
    let mut message = format!("{} of the rows cannot be imported; nothing was", grouped(problems.len() as u128));
    for (line, why) in problems.iter().take(MAX_REPORTED) {
        // Writing to a string cannot fail.
        let _ = write!(message, "\n  line {line}: {why}");
    }
    if let Some(more) = problems.len().checked_sub(MAX_REPORTED).filter(|more| *more > 0) {
        let _ = write!(message, "\n  and {} more", grouped(more as u128));
    }
    Err(CommandError::failed(message))
}

fn only(line: usize, why: &dyn Display) -> CommandError {
    CommandError::failed(format!("nothing was imported\n  line {line}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::NanoUsd;

    fn message(text: &str) -> String {
        match read(text) {
            Ok((lines, new)) => new.iter().zip(lines).map(|(key, line)| format!("{line} {}\n", key.name)).collect(),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn a_row_is_a_key_with_everything_it_has() {
        let check = |text: &str| {
            let (_, new) = read(text).unwrap_or_else(|error| panic!("{}", error.message()));
            let key = new.first().expect("one");
            assert_eq!((&*key.name, &*key.policy, key.team.as_deref()), ("a", "pro", Some("x,y")));
            assert_eq!(key.own.limits.requests_per_minute, Some(5));
            assert_eq!(key.own.budget.as_ref().map(|budget| budget.limit), Some(NanoUsd(1_500_000_000)));
            assert_eq!((key.expires, key.hash), (Some(1_801_440_000), Some(KeyHash::of("s"))));
        };
        check(
            "hash,name,policy,secret,team,requests_per_minute,budget,expires\n,a,pro,s,\"x,y\",5,1.5/month,2027-01-31\n",
        );
        check(
            r#"{"name":"a","policy":"pro","secret":"s","team":"x,y","requests_per_minute":5,"budget":"1.5/month","expires":"2027-01-31","hash":null}"#,
        );
    }

    #[test]
    fn every_invalid_row_is_reported_with_its_line_and_none_of_its_cells() {
        let text = "name,policy,secret,max_concurrent\na,pro,hush-1,1\nb,pro,hush-2,hush-3\nc,,hush-4,\nd,pro,,\na,pro,hush-5,\ne,pro,hush-1,\nf,pro\n";
        let message = message(text);
        for expected in [
            "6 of the rows",
            "line 3: max_concurrent: is a whole number",
            "line 4: policy: is missing",
            "line 5: write one of secret and hash",
            "line 6: name: line 2 has it too",
            "line 7: the key of line 2 has this secret too",
            "line 8: has 2 cells, and the header 4",
        ] {
            assert!(message.contains(expected), "{expected} is not in: {message}");
        }
        assert!(!message.contains("hush"), "{message}");
    }

    #[test]
    fn a_file_without_its_header_gives_nothing_away() {
        let check = |text: &str, expected: &str| {
            let message = message(text);
            assert!(message.contains(expected) && !message.contains("hush"), "{message}");
        };
        check("a,pro,hush\n", "line 1: column 1 is none of name, policy");
        check("name,policy,secret,secret\n", "line 1: two columns are called secret");
        check("{\"name\":\"a\",\"hush\":\"b\"}\n", "line 1: has a member that is none of name, policy");
        check("\n{\"name\":\"a\"}\n{\"hush\n", "line 3: is no JSON object");
        check("{\"name\":[\"hush\"]}\n", "line 1: name: write a text or a number");
        check("name,policy,secret\n\"a,pro,hush\n", "line 2: a quote is not closed");
        check("", "there are no rows");
        check("name,policy,secret\n", "there are no rows");
    }
}

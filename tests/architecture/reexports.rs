//! Follows `pub use`: which item a path means, whatever it is called on the way.
//!
//! Must never lose an item on the way: what it cannot follow it returns as far as it got, which is then
//! judged as written. Not followed are type aliases, the types of public fields and the results of
//! functions, whose owner a caller needs no path to.
//!
//! Start reading in [`ReExports::resolve`].

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Use};

/// Exports that lead to exports; more than any code has.
const MOST_STEPS: usize = 16;

/// What every module of the crate exports that another one defines.
#[derive(Default)]
pub struct ReExports {
    modules: BTreeMap<Vec<String>, Module>,
}

#[derive(Default)]
struct Module {
    defined: BTreeSet<String>,
    uses: Vec<Use>,
}

impl ReExports {
    pub fn of(sources: &[Source]) -> Self {
        let mut modules: BTreeMap<Vec<String>, Module> = BTreeMap::new();
        for source in sources {
            let path = source.module_path();
            // A module is one of its parent's items, whoever declares it.
            if let Some((name, parent)) = path.split_last() {
                modules.entry(parent.to_vec()).or_default().defined.insert(name.clone());
            }
            let module = modules.entry(path).or_default();
            module.defined.extend(source.defined.iter().cloned());
            module.uses.extend(source.uses.iter().cloned());
        }
        Self { modules }
    }

    /// `crate::…` as the path of the module that defines it, from `crate`.
    pub fn resolve(&self, path: &[String]) -> Vec<String> {
        let mut at: Vec<String> = path.to_vec();
        for _ in 0..MOST_STEPS {
            match self.step(&at) {
                Some(next) if next != at => at = next,
                _ => break,
            }
        }
        at
    }

    /// The path with its first exported segment replaced by what it stands for.
    fn step(&self, path: &[String]) -> Option<Vec<String>> {
        let inside = path.strip_prefix(&["crate".to_owned()])?;
        for (at, name) in inside.iter().enumerate() {
            let (here, rest) = (&inside[..at], &inside[at + 1..]);
            let module = self.modules.get(here)?;
            let target = self.exported(here, module, name, MOST_STEPS);
            if let Some(mut target) = target {
                target.extend_from_slice(rest);
                return Some(target);
            }
        }
        None
    }

    /// What `name` stands for in `module`, where that is another module's.
    fn exported(&self, here: &[String], module: &Module, name: &str, steps: usize) -> Option<Vec<String>> {
        let exports = || module.uses.iter().filter(|used| used.exported);
        if let Some(found) = exports().find(|used| used.name == name && used.segments.last().is_some_and(|s| s != "*"))
        {
            return self.absolute(here, module, &found.segments);
        }
        if module.defined.contains(name) || steps == 0 {
            return None;
        }
        exports().filter(|used| used.name == "*").find_map(|used| {
            let mut target = self.absolute(here, module, &used.segments[..used.segments.len() - 1])?;
            let behind = self.modules.get(&target[1..])?;
            let passed_on = self.exported(&target[1..], behind, name, steps - 1);
            target.push(name.to_owned());
            passed_on.or_else(|| behind.defined.contains(name).then_some(target))
        })
    }

    /// A path written in the module `here`, from `crate`; `None` for other crates.
    fn absolute(&self, here: &[String], module: &Module, path: &[String]) -> Option<Vec<String>> {
        let from = |module: &[String], rest: &[String]| {
            let mut out = vec!["crate".to_owned()];
            out.extend_from_slice(module);
            out.extend_from_slice(rest);
            Some(out)
        };
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(path.to_vec()),
            "self" => from(here, rest),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                from(&here[..here.len().checked_sub(ups)?], &path[ups..])
            }
            _ => {
                let mut below = here.to_vec();
                below.push(first.clone());
                if self.modules.contains_key(&below) {
                    return from(&below, rest);
                }
                // `use crate::store;` and then `pub use store::Keys;`
                let named = module.uses.iter().find(|used| used.name == *first && used.segments != path)?;
                let mut out = named.segments.clone();
                out.extend_from_slice(rest);
                (out[0] == "crate").then_some(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_what_is_behind_its_exports() {
        let files = [
            ("src/lib.rs", "pub mod admin; pub mod store; pub mod relay;"),
            (
                "src/store/mod.rs",
                "pub mod book; pub mod sqlite; pub use book::*; pub struct Keys; pub type Rows = Vec<u8>;",
            ),
            ("src/store/book.rs", "pub struct Page; pub use super::sqlite::Disk as Drive;"),
            ("src/store/sqlite.rs", "pub struct Disk;"),
            (
                "src/admin/mod.rs",
                "use crate::store; pub use store::Keys; pub use crate::store::{Page as Leaf, book};\npub struct Own;",
            ),
            (
                "src/admin/more.rs",
                "pub use super::Keys; pub(crate) use super::super::store::Rows; use crate::store::Page;",
            ),
            (
                "src/relay/mod.rs",
                "pub mod health; pub use crate::admin::*; pub use crate::store as ledger; pub use tokio::time;",
            ),
            ("src/relay/health.rs", "#[cfg(test)] mod tests { pub use crate::store::Keys; }"),
        ];
        let sources: Vec<Source> = files.iter().map(|(file, text)| Source::parse(file, text)).collect();
        let exports = ReExports::of(&sources);
        let check = |path: &str, expected: &str| {
            let path: Vec<String> = path.split("::").map(str::to_owned).collect();
            assert_eq!(exports.resolve(&path).join("::"), expected);
        };
        check("crate::admin::Own", "crate::admin::Own");
        check("crate::admin::Keys", "crate::store::Keys");
        check("crate::admin::Keys::new", "crate::store::Keys::new");
        check("crate::admin::Leaf", "crate::store::book::Page");
        check("crate::admin::book::Drive", "crate::store::sqlite::Disk");
        check("crate::admin::more::Keys", "crate::store::Keys");
        check("crate::admin::more::Rows", "crate::store::Rows");
        // Not exported, or only by test code.
        check("crate::admin::more::Page", "crate::admin::more::Page");
        check("crate::relay::health::Keys", "crate::relay::health::Keys");
        // Globs, renamed modules, modules behind modules.
        check("crate::store::Drive", "crate::store::sqlite::Disk");
        check("crate::relay::Keys", "crate::store::Keys");
        check("crate::relay::Own", "crate::admin::Own");
        check("crate::relay::ledger::Keys", "crate::store::Keys");
        check("crate::relay::time::Instant", "crate::relay::time::Instant");
        check("tokio::time::Instant", "tokio::time::Instant");
    }

    #[test]
    fn exports_in_a_circle_end() {
        let sources = [
            Source::parse("src/a.rs", "pub use crate::b::*; pub use crate::b::X;"),
            Source::parse("src/b.rs", "pub use crate::a::*; pub use crate::a::X;"),
        ];
        let path: Vec<String> = ["crate", "a", "X"].map(str::to_owned).to_vec();
        assert_eq!(ReExports::of(&sources).resolve(&path).last().unwrap(), "X");
    }
}

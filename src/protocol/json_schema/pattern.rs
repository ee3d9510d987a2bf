//! A text that a regular expression matches.

use crate::domain::random::RandomValue;
use regex_syntax::hir::{Class, Hir, HirKind};

/// The most bytes that are written for one pattern.
const LONGEST: usize = 4096;
/// Characters that are taken where a class has them.
const USUAL: &str = "riverlightstone0123456789ABCXYZ-_ ";

/// A text that `pattern` matches, each repetition `extra` times longer than it must be; `None` where the pattern is
/// of another dialect, such as one that looks ahead.
pub(super) fn matched_text(pattern: &str, extra: u32, seed: RandomValue) -> Option<String> {
    let hir = regex_syntax::Parser::new().parse(pattern).ok()?;
    let mut text = String::new();
    write(&hir, extra, seed, &mut text);
    Some(text)
}

fn write(hir: &Hir, extra: u32, seed: RandomValue, text: &mut String) {
    if text.len() > LONGEST {
        return;
    }
    let next = |text: &str| seed.salted(text.len() as u64);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(Class::Unicode(class)) => {
            let fits = |c: &char| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(c));
            let usual: Vec<char> = USUAL.chars().filter(fits).collect();
            let drawn = usual.get(next(text).below(usual.len() as u64) as usize).copied();
            text.extend(drawn.or_else(|| class.ranges().first().map(|range| range.start())));
        }
        HirKind::Class(Class::Bytes(class)) => {
            text.extend(class.ranges().first().map(|range| char::from(range.start())));
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX);
            for _ in 0..repetition.min.saturating_add(extra).min(most) {
                if text.len() > LONGEST {
                    return;
                }
                write(&repetition.sub, extra, seed, text);
                // A repetition of nothing.
                if text.is_empty() {
                    return;
                }
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, extra, seed, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, extra, seed, text)),
        HirKind::Alternation(parts) => {
            let drawn = next(text).below(parts.len() as u64) as usize;
            parts.get(drawn).into_iter().for_each(|part| write(part, extra, seed, text));
        }
    }
}

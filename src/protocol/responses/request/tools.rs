//! What `input`, the `items` of a conversation and `tools` name that only a provider's account has, and that nobody here made: files, vector stores,
//! containers, skills. Whose they are cannot be known, so they are refused.
//!
//! It looks no further than the members of the API: what a schema, an argument or a citation calls so is none of them.
//!
//! Start reading in [`check`].

use crate::domain::call::BodyProblem;
use crate::protocol::json::member::{BodyField, unquoted};
use crate::protocol::json::name_fold::{folds_to, is_plain};
use crate::protocol::json::scan::{JsonError, Scanner, value_at};
use memchr::memmem;

/// Members that name something of an account, and where: among items, `tools` or both.
const OF_ACCOUNTS: [(&str, bool, bool); 6] = [
    ("file_id", true, true),
    ("file_ids", true, true),
    ("vector_store_ids", true, true),
    ("container_id", false, true),
    ("container", false, true),
    ("skill_id", true, true),
];
/// What is below these is the client's own, or what a provider said.
const NOT_LOOKED_INTO: [&str; 10] = [
    "parameters",
    "input_schema",
    "output_schema",
    "schema",
    "arguments",
    "metadata",
    "annotations",
    "results",
    "outputs",
    "headers",
];

/// Looks for them in `member`, a value of `body` that is called `name`.
///
/// # Errors
/// [`BodyProblem::BadField`] at `name` if there is one.
pub(super) fn check(body: &str, name: &'static str, member: &BodyField<'_>) -> Result<(), BodyProblem> {
    let Some(value) = member.given() else { return Ok(()) };
    let text = value.text.as_bytes();
    // Names may be written with escapes, and in capitals.
    let may_name = |needle: &&[u8]| memmem::find(text, needle).is_some();
    let needles: [&[u8]; 8] =
        [b"_id", b"_ID", b"_Id", b"_iD", b"ontainer", b"ONTAINER", b"\\u00", "\u{131}".as_bytes()];
    if !needles.iter().any(may_name) {
        return Ok(());
    }
    let mut found = None;
    // The body was read before: nothing can be wrong with it.
    let _ = value_at(body, value.span().start, |scanner| look(body, name, scanner, &mut found));
    let Some(found) = found else { return Ok(()) };
    Err(member.bad(&format!(
        "names a '{found}', which belongs to the provider's account and not to this key. Send the content itself"
    )))
}

fn look(body: &str, place: &str, scanner: &mut Scanner<'_>, found: &mut Option<&'static str>) -> Result<(), JsonError> {
    match scanner.next() {
        Some(b'[') => scanner.list(|scanner| look(body, place, scanner, found)),
        Some(b'{') => scanner.object(|scanner, name| {
            let Some(name) = unquoted(&body[name]) else { return scanner.value() };
            if NOT_LOOKED_INTO.contains(&&*name) {
                return scanner.value();
            }
            let first = scanner.next();
            if let Some(known) = known(&name, place)
                // A container that is made for the request is an object; its files are looked for in it.
                && !(known == "container" && first == Some(b'{'))
                && first != Some(b'n')
            {
                found.get_or_insert(known);
            }
            look(body, place, scanner, found)
        }),
        _ => scanner.value(),
    }
}

fn known(name: &str, place: &str) -> Option<&'static str> {
    let names = OF_ACCOUNTS.iter().filter(|(_, items, tools)| if place == "tools" { *tools } else { *items });
    let is_it = |known: &str| name == known || (!is_plain(name) && folds_to(name, known));
    names.map(|(known, ..)| *known).find(|known| is_it(known))
}

//! A JSON value that is taken apart only where something is added to it: everything else stays as it was written,
//! however deep it nests and whatever its numbers are.
//!
//! It knows no names of members. Text is kept as it was written too, so that halves of one character that come one
//! after the other are put together again.
//!
//! Start reading in [`JsonValue::read`].

use super::mend::{mended, with_numbers};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The members of an object, by name; of two of one name the last.
pub type JsonObject = BTreeMap<String, JsonValue>;

/// Any value.
#[derive(Clone, Debug)]
pub enum JsonValue {
    /// As it was written.
    Written(Box<RawValue>),
    /// A string: what was written between its quotes.
    Text(String),
    /// A list.
    List(Vec<JsonValue>),
    /// An object.
    Object(JsonObject),
}

impl JsonValue {
    /// The value that is written in `json`, leniently: what [`mended`] respells is respelled where it must be.
    pub fn read(json: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(json);
        let raw = serde_json::from_str(&text).or_else(|_| serde_json::from_slice(&with_numbers(&text)));
        raw.ok().map(Self::Written)
    }

    /// The string of these characters, none of which needs an escape.
    pub fn plain_text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Takes it apart, one level deep; a number, a truth value and `null` have no parts.
    pub fn open(&mut self) {
        let Self::Written(raw) = self else { return };
        let json = raw.get();
        let opened = match json.as_bytes().first() {
            Some(b'"') => Some(Self::Text(json[1..json.len() - 1].to_owned())),
            Some(b'[') => parts(json).map(|list: Vec<_>| Self::List(list.into_iter().map(Self::Written).collect())),
            Some(b'{') => parts(json).map(|members: BTreeMap<_, _>| {
                Self::Object(members.into_iter().map(|(name, value)| (name, Self::Written(value))).collect())
            }),
            _ => None,
        };
        if let Some(opened) = opened {
            *self = opened;
        }
    }

    /// Its members, where it is an object.
    pub fn into_members(mut self) -> Option<JsonObject> {
        self.open();
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// Its elements, where it is a list.
    pub fn into_elements(mut self) -> Option<Vec<Self>> {
        self.open();
        if let Self::List(elements) = self { Some(elements) } else { None }
    }

    /// Its members, where it is an object.
    pub fn members_mut(&mut self) -> Option<&mut JsonObject> {
        self.open();
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// Its elements, where it is a list.
    pub fn elements_mut(&mut self) -> Option<&mut Vec<Self>> {
        self.open();
        if let Self::List(elements) = self { Some(elements) } else { None }
    }

    /// As it is written, where it is a number.
    pub fn number(&self) -> Option<&str> {
        let Self::Written(raw) = self else { return None };
        matches!(raw.get().as_bytes().first(), Some(b'-' | b'0'..=b'9')).then(|| raw.get())
    }

    /// Whether it is `false`.
    pub fn is_false(&self) -> bool {
        matches!(self, Self::Written(raw) if raw.get() == "false")
    }

    /// Whether it is the string `text`, in which no character needs an escape.
    pub fn is_text(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Written(raw) => raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(text),
            Self::List(_) | Self::Object(_) => false,
        }
    }

    /// Whether it is `null`, or a string, a list or an object with nothing in it.
    pub fn says_nothing(&self) -> bool {
        match self {
            Self::Written(raw) => matches!(raw.get(), "null" | "\"\"" | "[]" | "{}"),
            Self::Text(text) => text.is_empty(),
            Self::List(elements) => elements.is_empty(),
            Self::Object(members) => members.is_empty(),
        }
    }

    /// Writes it behind `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Written(raw) => out.extend_from_slice(raw.get().as_bytes()),
            Self::Text(text) => {
                out.push(b'"');
                out.extend_from_slice(text.as_bytes());
                out.push(b'"');
            }
            Self::List(elements) => {
                out.push(b'[');
                for (at, element) in elements.iter().enumerate() {
                    out.extend_from_slice(if at == 0 { b"" } else { b"," });
                    element.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.extend_from_slice(if at == 0 { b"" } else { b"," });
                    out.extend_from_slice(&super::text::quoted(name));
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// The parts of `json` as a `T`. A name may hold half a surrogate pair, which no name in Rust can.
fn parts<T: for<'a> Deserialize<'a>>(json: &str) -> Option<T> {
    serde_json::from_str(json).or_else(|_| serde_json::from_slice(&mended(json.as_bytes()))).ok()
}

impl From<i64> for JsonValue {
    fn from(number: i64) -> Self {
        serde_json::value::to_raw_value(&number).map_or_else(|_| Self::null(), Self::Written)
    }
}

impl JsonValue {
    /// `null`.
    pub fn null() -> Self {
        Self::Written(RawValue::NULL.to_owned())
    }
}

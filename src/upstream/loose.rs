//! JSON values read without insisting on their type: providers differ in what they put where, and
//! a field we only glance at must not fail an answer.
//!
//! Nothing here keeps a value; each type remembers the one thing that was asked about it.

use super::text::text_bytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Whether a value is there and says something: not `null`, not empty.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Present(pub(super) bool);

/// Whether a value is there and says something, and how many bytes it is, if it is text.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct TextPresence {
    /// It does.
    pub(super) present: bool,
    pub(super) bytes: u64,
}

/// A value in which there may be text at any depth, such as calls of tools.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Deep(pub(super) TextPresence);

/// An object; anything else is as good as one without members.
#[derive(Default, Debug)]
pub(super) struct IfObject<T>(pub(super) T);

/// Whether a value is the text `error`.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Object {
    /// It is.
    pub(super) is_error: bool,
}

/// A token count; `None` for what cannot be one.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Number(pub(super) Option<u64>);

/// What a value turned out to be.
enum Kind<'a> {
    Nothing,
    Text(&'a str),
    Number(Option<u64>),
    /// A truth value, a list or an object; whether it holds anything.
    Other(bool),
}

/// Takes any value and tells `T` what it is.
struct Any<T>(fn(Kind<'_>) -> T);

impl<'de, T> Visitor<'de> for Any<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(self.0(Kind::Nothing))
    }

    fn visit_bool<E>(self, value: bool) -> Result<T, E> {
        Ok(self.0(Kind::Other(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<T, E> {
        Ok(self.0(Kind::Number(Some(value))))
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(self.0(Kind::Number(None)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<T, E> {
        let whole = value.fract() == 0.0 && (0.0..9e15).contains(&value);
        Ok(self.0(Kind::Number(whole.then_some(value as u64))))
    }

    fn visit_str<E>(self, value: &str) -> Result<T, E> {
        Ok(self.0(Kind::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        let mut some = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            some = true;
        }
        Ok(self.0(Kind::Other(some)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut some = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            some = true;
        }
        Ok(self.0(Kind::Other(some)))
    }
}

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(|kind| match kind {
            Kind::Nothing => Self(false),
            Kind::Text(text) => Self(!text.is_empty()),
            Kind::Number(_) => Self(true),
            Kind::Other(some) => Self(some),
        }))
    }
}

impl<'de> Deserialize<'de> for TextPresence {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(|kind| match kind {
            Kind::Nothing => Self::default(),
            Kind::Text(text) => Self { present: !text.is_empty(), bytes: text.len() as u64 },
            Kind::Number(_) => Self { present: true, bytes: 0 },
            Kind::Other(some) => Self { present: some, bytes: 0 },
        }))
    }
}

impl<'de> Deserialize<'de> for Deep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        let inside = raw.strip_prefix(['[', '{', '"']).map_or("", |rest| &rest[..rest.len() - 1]);
        let is_scalar = !raw.starts_with(['[', '{', '"']) && raw != "null" && raw != "false";
        let present = is_scalar || (raw.starts_with('"') && !inside.is_empty()) || !inside.trim_ascii().is_empty();
        Ok(Self(TextPresence { present, bytes: text_bytes(raw.as_bytes()) }))
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for IfObject<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        Ok(Self(if raw.starts_with('{') { serde_json::from_str(raw).unwrap_or_default() } else { T::default() }))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(|kind| Self { is_error: matches!(kind, Kind::Text("error")) }))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(|kind| match kind {
            Kind::Number(count) => Self(count),
            Kind::Nothing => Self(Some(0)),
            Kind::Text(_) | Kind::Other(_) => Self(None),
        }))
    }
}

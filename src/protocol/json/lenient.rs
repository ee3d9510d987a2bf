//! JSON values read without insisting on their type: providers differ in what they put where, and a member of
//! which little is asked must not fail an answer.
//!
//! It never keeps a value: each type holds only the one fact that is asked about it.
//!
//! Start reading in [`TextSize`].

use super::text::text_bytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Whether a value is present and not empty: `null`, `false`, `""`, `[]` and `{}` are empty.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct NonEmptyValue(pub(in crate::protocol) bool);

/// Whether a value is present and not empty, and how long it is, if it is text.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct TextSize {
    /// Whether it is present and not empty.
    pub(in crate::protocol) present: bool,
    /// Its length in bytes once unescaped; 0 for what is no text.
    pub(in crate::protocol) bytes: u64,
}

/// A value in which there may be text at any depth, such as calls of tools.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct NestedText(pub(in crate::protocol) TextSize);

/// An object; anything else is as good as one without members.
#[derive(Default, Debug)]
pub(in crate::protocol) struct LenientObject<T>(pub(in crate::protocol) T);

/// Whether a value is the text `error`.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct ObjectName {
    /// Whether it is.
    pub(in crate::protocol) is_error: bool,
}

/// A token count; `None` for what cannot be one.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct TokenCount(pub(in crate::protocol) Option<u64>);

/// What a value turned out to be.
enum ValueKind<'a> {
    Nothing,
    Text(&'a str),
    Number(Option<u64>),
    /// A truth value, a list or an object; whether it holds anything.
    Other(bool),
}

/// Takes any value and makes a `T` of what it is.
struct AnyValue<T>(fn(ValueKind<'_>) -> T);

impl<'de, T> Visitor<'de> for AnyValue<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(self.0(ValueKind::Nothing))
    }

    fn visit_bool<E>(self, value: bool) -> Result<T, E> {
        Ok(self.0(ValueKind::Other(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<T, E> {
        Ok(self.0(ValueKind::Number(Some(value))))
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(self.0(ValueKind::Number(None)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<T, E> {
        let whole = value.fract() == 0.0 && (0.0..9e15).contains(&value);
        Ok(self.0(ValueKind::Number(whole.then_some(value as u64))))
    }

    fn visit_str<E>(self, value: &str) -> Result<T, E> {
        Ok(self.0(ValueKind::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        let mut some = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            some = true;
        }
        Ok(self.0(ValueKind::Other(some)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut some = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            some = true;
        }
        Ok(self.0(ValueKind::Other(some)))
    }
}

impl<'de> Deserialize<'de> for NonEmptyValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue(|kind| match kind {
            ValueKind::Nothing => Self(false),
            ValueKind::Text(text) => Self(!text.is_empty()),
            ValueKind::Number(_) => Self(true),
            ValueKind::Other(some) => Self(some),
        }))
    }
}

impl<'de> Deserialize<'de> for TextSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue(|kind| match kind {
            ValueKind::Nothing => Self::default(),
            ValueKind::Text(text) => Self { present: !text.is_empty(), bytes: text.len() as u64 },
            ValueKind::Number(_) => Self { present: true, bytes: 0 },
            ValueKind::Other(some) => Self { present: some, bytes: 0 },
        }))
    }
}

impl<'de> Deserialize<'de> for NestedText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        let inside = raw.strip_prefix(['[', '{', '"']).map_or("", |rest| &rest[..rest.len() - 1]);
        let is_scalar = !raw.starts_with(['[', '{', '"']) && raw != "null" && raw != "false";
        let present = is_scalar || (raw.starts_with('"') && !inside.is_empty()) || !inside.trim_ascii().is_empty();
        Ok(Self(TextSize { present, bytes: text_bytes(raw.as_bytes()) }))
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for LenientObject<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        Ok(Self(if raw.starts_with('{') { serde_json::from_str(raw).unwrap_or_default() } else { T::default() }))
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue(|kind| Self { is_error: matches!(kind, ValueKind::Text("error")) }))
    }
}

impl<'de> Deserialize<'de> for TokenCount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue(|kind| match kind {
            ValueKind::Number(count) => Self(count),
            ValueKind::Nothing => Self(Some(0)),
            ValueKind::Text(_) | ValueKind::Other(_) => Self(None),
        }))
    }
}

//! JSON values read without insisting on their type: providers differ in what they put where, and a member of
//! which little is asked must not fail an answer.
//!
//! It never keeps a value: each type holds only the one fact that is asked about it. Of two members of one name the
//! last counts, as in every client.
//!
//! Start reading in [`TextSize`], and in [`PartsReader`] for what has parts.

use super::text::{string_bytes, text_bytes};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::marker::PhantomData;

/// Whether a value is present and not empty: `null`, `false`, `0`, `""`, `[]` and `{}` are empty.
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

/// What is asked of the parts of a value: of an object's members or of a list's elements. What is not asked about is
/// skipped, and any other value has no parts.
pub(in crate::protocol) trait PartsReader<'de>: Default {
    /// The names of members that are asked about, and one for all others.
    type Name: Default;

    /// The member called `text`.
    fn name(_text: &str) -> Self::Name {
        Self::Name::default()
    }

    /// The value is an object.
    fn begin_object(&mut self) {}

    /// Reads the value of the member `name`, which is next in `members`.
    fn member<A: MapAccess<'de>>(&mut self, _name: Self::Name, members: &mut A) -> Result<(), A::Error> {
        members.next_value::<IgnoredAny>().map(drop)
    }

    /// Reads the next element of `list`; whether there was one.
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        list.next_element::<IgnoredAny>().map(|element| element.is_some())
    }
}

/// A value of which the parts are read.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct PartsValue<T>(pub(in crate::protocol) T);

/// A value in which there may be text at any depth, such as calls of tools; a text by itself is one.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct NestedText(pub(in crate::protocol) TextSize);

/// An object; anything else is as good as one without members.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct LenientObject<T>(pub(in crate::protocol) T);

/// Why a choice is finished.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct FinishReasonValue {
    /// It is.
    pub(in crate::protocol) given: bool,
    /// It is not finished but broken off by an error.
    pub(in crate::protocol) is_error: bool,
}

/// Whether a value is a code of an error: neither empty, nor zero, nor the code or word of a success.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct ErrorCode(pub(in crate::protocol) bool);

/// Whether a value is the text `error`.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct ObjectName {
    /// Whether it is.
    pub(in crate::protocol) is_error: bool,
}

/// A token count; `None` for what cannot be one.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::protocol) struct TokenCount(pub(in crate::protocol) Option<u64>);

/// Reads a JSON object.
pub(in crate::protocol) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    if !matches!(json.trim_ascii_start().first(), None | Some(b'{')) {
        return Err(serde::de::Error::custom("not an object"));
    }
    // Checking all of it at once costs less than each of its strings (`make instructions`: 5 % of a frame). What is not
    // UTF-8 in a place that is not read is no error.
    match str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(json),
    }
}

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
            ValueKind::Number(number) => Self(number != Some(0)),
            ValueKind::Other(some) => Self(some),
        }))
    }
}

impl TextSize {
    /// Adds another one to it.
    pub(in crate::protocol) fn add(&mut self, other: Self) {
        self.present |= other.present;
        self.bytes += other.bytes;
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
        if raw.starts_with('"') {
            let bytes = string_bytes(raw.as_bytes());
            return Ok(Self(TextSize { present: bytes > 0, bytes }));
        }
        let inside = raw.strip_prefix(['[', '{']).map_or("", |rest| &rest[..rest.len() - 1]);
        let is_scalar = !raw.starts_with(['[', '{']) && raw != "null" && raw != "false";
        let present = is_scalar || !inside.trim_ascii().is_empty();
        Ok(Self(TextSize { present, bytes: text_bytes(raw.as_bytes()) }))
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for LenientObject<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        Ok(Self(if raw.starts_with('{') { serde_json::from_str(raw).unwrap_or_default() } else { T::default() }))
    }
}

impl<'de, T: PartsReader<'de>> Deserialize<'de> for PartsValue<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PartsVisitor(T::default())).map(Self)
    }
}

struct PartsVisitor<T>(T);

impl<'de, T: PartsReader<'de>> Visitor<'de> for PartsVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(self.0)
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(self.0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(self.0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(self.0)
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(self.0)
    }

    fn visit_str<E>(self, _: &str) -> Result<T, E> {
        Ok(self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<T, A::Error> {
        while self.0.element(&mut list)? {}
        Ok(self.0)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<T, A::Error> {
        self.0.begin_object();
        while let Some(MemberName(name)) = members.next_key::<MemberName<T>>()? {
            self.0.member(name, &mut members)?;
        }
        Ok(self.0)
    }
}

/// The name of a member, as `T` knows it.
struct MemberName<'de, T: PartsReader<'de>>(T::Name);

impl<'de, T: PartsReader<'de>> Deserialize<'de> for MemberName<'de, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NameVisitor<T>(PhantomData<T>);

        impl<'de, T: PartsReader<'de>> Visitor<'de> for NameVisitor<T> {
            type Value = T::Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<T::Name, E> {
                Ok(T::name(text))
            }
        }

        from.deserialize_str(NameVisitor::<T>(PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for FinishReasonValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// By which hosts say that an error ended a choice.
        const ERRORS: [&str; 2] = ["error", "network_error"];
        from.deserialize_any(AnyValue(|kind| match kind {
            ValueKind::Nothing => Self::default(),
            ValueKind::Text(text) => {
                let is_error = ERRORS.iter().any(|error| error.eq_ignore_ascii_case(text));
                Self { given: !text.is_empty(), is_error }
            }
            ValueKind::Number(_) => Self { given: true, is_error: false },
            ValueKind::Other(some) => Self { given: some, is_error: false },
        }))
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        const SUCCESSES: [&str; 5] = ["", "0", "200", "ok", "success"];
        from.deserialize_any(AnyValue(|kind| match kind {
            ValueKind::Nothing => Self(false),
            ValueKind::Text(text) => Self(!SUCCESSES.iter().any(|success| success.eq_ignore_ascii_case(text))),
            ValueKind::Number(code) => Self(!matches!(code, Some(0 | 200))),
            ValueKind::Other(some) => Self(some),
        }))
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

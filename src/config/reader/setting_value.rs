//! What a type must know to be a setting, and the plain types that do.

// circle: value_ref.rs: a type reads itself from a value of the document, and that is read as a type.

use std::num::{NonZeroU32, NonZeroU64};

use toml::de::DeValue;

use super::setting::{DisplayValue, SettingShape, ValueError};
use super::similar::nearest;
use super::value_ref::ConfigValueRef;

/// A type that a setting may have.
pub(crate) trait SettingValue: Sized {
    /// What to write, completing "write …".
    const EXPECTED: &'static str;

    /// Whether a literal may never be shown.
    const SECRET: bool = false;

    /// Whether a secret may have been written here by mistake.
    const SENSITIVE: bool = Self::SECRET;

    /// What a literal looks like.
    fn shape() -> SettingShape {
        SettingShape::Text
    }

    /// Reads a value.
    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError>;

    /// The value as `config show` prints it.
    fn show(&self) -> DisplayValue;
}

impl SettingValue for String {
    const EXPECTED: &'static str = "a string in double quotes";

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        if text.is_empty() {
            return Err(ValueError::new("is empty"));
        }
        Ok(text)
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.clone())
    }
}

impl SettingValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn shape() -> SettingShape {
        SettingShape::Flag
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        match value_ref.value() {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(ValueError::type_of("true or false", other)),
        }
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Flag(*self)
    }
}

impl SettingValue for u64 {
    const EXPECTED: &'static str = "a whole number, without quotes";

    fn shape() -> SettingShape {
        SettingShape::Integer { least: 0, most: u64::MAX }
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let DeValue::Integer(number) = value_ref.value() else {
            return Err(ValueError::type_of("a whole number", value_ref.value()));
        };
        u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| {
            if number.as_str().starts_with('-') {
                return ValueError::new("is below zero");
            }
            ValueError::new("is too large")
        })
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Number(*self)
    }
}

impl SettingValue for u32 {
    const EXPECTED: &'static str = u64::EXPECTED;

    fn shape() -> SettingShape {
        SettingShape::Integer { least: 0, most: u64::from(u32::MAX) }
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        u32::try_from(u64::read(value_ref)?).map_err(|_| ValueError::new("is too large"))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Number(u64::from(*self))
    }
}

impl SettingValue for NonZeroU64 {
    const EXPECTED: &'static str = "a whole number from 1 on, without quotes";

    fn shape() -> SettingShape {
        SettingShape::Integer { least: 1, most: u64::MAX }
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        NonZeroU64::new(u64::read(value_ref)?).ok_or_else(zero)
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Number(self.get())
    }
}

impl SettingValue for NonZeroU32 {
    const EXPECTED: &'static str = NonZeroU64::EXPECTED;

    fn shape() -> SettingShape {
        SettingShape::Integer { least: 1, most: u64::from(u32::MAX) }
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        NonZeroU32::new(u32::read(value_ref)?).ok_or_else(zero)
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Number(u64::from(self.get()))
    }
}

fn zero() -> ValueError {
    ValueError::hinting("is 0, which would allow nothing", "write a number from 1 on, or remove the setting")
}

/// A setting that is one of a few words.
pub(crate) trait KeywordValue: Copy + PartialEq + 'static {
    /// The words, each with its meaning.
    const KEYWORDS: &'static [(&'static str, Self)];

    /// How it is written.
    fn word(self) -> &'static str {
        let named = Self::KEYWORDS.iter().find(|(_, meaning)| *meaning == self);
        named.map_or("", |(word, _)| word)
    }
}

/// Reads one of the words of `T`.
pub(crate) fn read_keyword<T: KeywordValue>(value_ref: &ConfigValueRef<'_>) -> Result<T, ValueError> {
    let text = value_ref.text()?;
    if let Some((_, meaning)) = T::KEYWORDS.iter().find(|(word, _)| *word == text) {
        return Ok(*meaning);
    }
    let keywords: Vec<&str> = T::KEYWORDS.iter().map(|(word, _)| *word).collect();
    let near = nearest(&text, keywords.iter().copied());
    let hint = match near {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("write one of: {}", keywords.join(", ")),
    };
    Err(ValueError::hinting("is not one of the words allowed here", hint))
}

/// Declares how the variants of an enum are written in the file.
macro_rules! keywords {
    ($type:ty { $first:literal => $variant_one:ident $(, $word:literal => $variant:ident)* $(,)? }) => {
        impl $crate::config::reader::KeywordValue for $type {
            const KEYWORDS: &'static [(&'static str, Self)] =
                &[($first, <$type>::$variant_one) $(, ($word, <$type>::$variant))*];
        }

        impl $crate::config::reader::SettingValue for $type {
            const EXPECTED: &'static str = concat!("one of: ", $first $(, ", ", $word)*);

            fn shape() -> $crate::config::reader::SettingShape {
                let keywords = <$type as $crate::config::reader::KeywordValue>::KEYWORDS;
                $crate::config::reader::SettingShape::Words(keywords.iter().map(|(word, _)| *word).collect())
            }

            fn read(
                value_ref: &$crate::config::reader::ConfigValueRef<'_>,
            ) -> Result<Self, $crate::config::reader::ValueError> {
                $crate::config::reader::read_keyword(value_ref)
            }

            fn show(&self) -> $crate::config::reader::DisplayValue {
                let word = $crate::config::reader::KeywordValue::word(*self);
                $crate::config::reader::DisplayValue::Text(word.to_owned())
            }
        }
    };
}
pub(crate) use keywords;

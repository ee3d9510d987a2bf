//! Reading a spanned document setting by setting.
//!
//! A [`Table`] is asked for its settings by name and type; what cannot be read becomes a problem on
//! the [`Diagnostics`] and reading goes on, so that every problem is found at once. Because each setting
//! passes here exactly once, this is also where the effective value and its origin are noted, where
//! environment overrides apply, where secrets are kept out of everything that is shown, and where the
//! [`Catalogue`] of all settings comes from.
//!
//! It must never know what any particular setting means. Start reading at [`Table`].

mod catalogue;
mod diagnostics;
mod path;
mod section;
mod setting;
mod table;
mod value_ref;

pub(super) use catalogue::{ANY_NAME, Catalogue, SettingDescription, SettingKind, ValueShape, ValueType};
pub(super) use diagnostics::{Diagnostics, nearest};
pub use diagnostics::{DisplayValue, EffectiveSetting, Origin, UnenforcedSetting};
pub(super) use section::{SettingKey, section};
pub(super) use setting::{Keyword, SettingValue, ValueError, keywords, read_keyword};
pub(super) use table::Table;
pub(super) use value_ref::ValueRef;

use super::problem::ValueLocation;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// What was written, or its default.
    pub value: T,
    /// The path of the setting, such as `tiers.default.then[0]`.
    pub path: String,
    /// Where it was written.
    pub location: ValueLocation,
}

impl<T> Located<T> {
    /// Whether somebody wrote it, rather than it being a default.
    pub fn is_explicit(&self) -> bool {
        self.location != ValueLocation::Unwritten
    }
}

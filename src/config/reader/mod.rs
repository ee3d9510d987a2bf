//! Reading a spanned document setting by setting.
//!
//! A [`Table`] reads its settings by name and type; what cannot be read becomes a problem in [`Diagnostics`]
//! and reading goes on, so that every problem is found at once. Because each setting is read exactly once, this
//! is also where the effective value and its origin are recorded, where environment overrides apply, where
//! secrets are kept out of all output, and where the [`Catalogue`] of all settings comes from.
//!
//! No particular setting may be named here. Start reading at [`section!`](section), then [`Table`].

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
    /// Whether it was written, rather than being a default.
    pub fn is_explicit(&self) -> bool {
        self.location != ValueLocation::Unwritten
    }
}

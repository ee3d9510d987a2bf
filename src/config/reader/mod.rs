//! Reading a spanned document setting by setting.
//!
//! A [`Table`] reads its settings by name and type; what cannot be read becomes a problem in [`Diagnostics`]
//! and reading goes on, so that every problem is found at once. Because each setting is read exactly once, this
//! is also where the effective value and its origin are recorded, where environment overrides apply, where
//! secrets are kept out of all output, and where the [`SettingCatalogue`] of all settings comes from.
//!
//! No particular setting may be named here. Start reading at [`section!`](mod@section), then [`Table`].

mod catalogue;
mod diagnostics;
mod path;
mod section;
mod setting;
mod setting_value;
mod similar;
mod table;
mod value_ref;

pub(super) use catalogue::{ANY_NAME, SettingCatalogue, SettingDescription, SettingKind, SettingType};
pub(super) use diagnostics::Diagnostics;
pub use diagnostics::{EffectiveSetting, SettingOrigin, UnenforcedSetting};
pub(super) use section::section;
pub use setting::{DisplayValue, Setting};
pub(super) use setting::{SettingKey, SettingShape, ValueError};
pub(super) use setting_value::{KeywordValue, SettingValue, keywords, read_keyword};
pub(super) use similar::nearest;
pub(super) use table::Table;
pub(super) use value_ref::ConfigValueRef;

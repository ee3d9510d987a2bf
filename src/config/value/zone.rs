//! Time zones by name.

use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};
use crate::domain::budget::Zone;

impl SettingValue for Zone {
    const EXPECTED: &'static str = "a time zone such as \"UTC\" or \"Europe/Paris\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[A-Za-z0-9_+/-]+")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let unknown =
            || ValueError::hinting("is no time zone", "write its name in the IANA database, such as Europe/Paris");
        Self::named(&value_ref.text()?).ok_or_else(unknown)
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.name().to_owned())
    }
}

//! Time zones by name.

use crate::config::reader::{Cell, Setting, Shape, Shown, Wrong};
use crate::domain::budget::Zone;

impl Setting for Zone {
    const EXPECTED: &'static str = "a time zone such as \"UTC\" or \"Europe/Paris\"";

    fn shape() -> Shape {
        Shape::Form("[A-Za-z0-9_+/-]+")
    }

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let unknown = || Wrong::hinting("is no time zone", "write its name in the IANA database, such as Europe/Paris");
        Self::named(&cell.text()?).ok_or_else(unknown)
    }

    fn show(&self) -> Shown {
        Shown::Text(self.name().to_owned())
    }
}

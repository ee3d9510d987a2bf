//! Declaring a table of the file: each of its settings once, with everything that is known of it.
//!
//! [`section!`] makes the struct that mirrors the table and the function that reads it from one list, so
//! that a setting cannot be read without a sentence, nor described without being read. Start reading at the
//! example of the macro.

/// Declares a table of the file: the struct that mirrors it, and `read`, which reads it in the order of the
/// declaration.
///
/// ```text
/// section! {
///     /// `[store]`
///     pub(in crate::config) struct StoreSection {
///         /// How long receipts are kept; absent: for ever.
///         retention: Option<Setting<WholeDays>> = optional(),
///     }
/// }
/// ```
///
/// The comment is the setting's sentence in the schema and in `docs/configuration.md`; what follows `=` is a
/// method of [`Table`](super::Table) without its first argument, the [`SettingKey`](super::SettingKey). A setting needs both,
/// else it does not compile. `#[unbuilt = "…"]` is what would not happen while its feature is not built. A
/// field with neither is another section whose settings lie in this table. `struct X named by name` is a
/// table whose name is the operator's choice, in a field of that name.
macro_rules! section {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $Section:ident $(named by $name:ident)? {
            $(
                $(#[doc = $sentence:tt])*
                $(#[unbuilt = $why:tt])?
                $(#[allow(dead_code, reason = $reason:tt)])?
                $field:ident: $Field:ty $(= $read:ident($($argument:expr),* $(,)?))?,
            )*
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $Section {
            $($visibility $name: $crate::config::reader::Setting<String>,)?
            $(
                // A sentence is for operators: its brackets are tables, not links.
                $(#[doc = $sentence])*
                #[allow(rustdoc::broken_intra_doc_links)]
                $(#[allow(dead_code, reason = $why)])?
                $(#[allow(dead_code, reason = $reason)])?
                $visibility $field: $Field,
            )*
        }

        impl $Section {
            /// The names of its fields: of its settings, where it holds no other section.
            #[allow(dead_code, reason = "used where a table may not hold these settings")]
            $visibility const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Reads each setting in the order of the declaration.
            $visibility fn read(
                $($name: $crate::config::reader::Setting<String>,)?
                table: &mut $crate::config::reader::Table<'_>,
            ) -> Self {
                Self {
                    $($name,)?
                    $($field: section!(
                        @read table, $field: $Field, [$($sentence)*] [$($why)?] $(= $read($($argument),*))?
                    ),)*
                }
            }
        }
    };
    (@read $table:ident, $field:ident: $Field:ty, [] []) => {
        <$Field>::read($table)
    };
    (
        @read $table:ident, $field:ident: $Field:ty,
        [$($sentence:tt)+] [$($why:tt)?] = $read:ident($($argument:expr),*)
    ) => {{
        const KEY: $crate::config::reader::SettingKey =
            $crate::config::reader::SettingKey::new(stringify!($field), concat!($($sentence),+))$(.unbuilt($why))?;
        $table.$read(KEY $(, $argument)*)
    }};
}
pub(crate) use section;

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::super::catalogue::EmptyEnvironment;
    use super::super::{Diagnostics, Setting, SettingCatalogue, Table};

    section! {
        /// `[engine]`
        struct EngineSection {
            /// What it is called;
            /// absent: nothing.
            label: Option<Setting<String>> = optional(),
            limits: EngineLimitsSection,
            /// Whether it may run backwards.
            #[unbuilt = "it would run forwards"]
            reverse: Setting<bool> = or(false),
        }
    }

    section! {
        /// Settings of the same table.
        struct EngineLimitsSection {
            /// The most turns in a second.
            turns: Setting<u32> = or(50),
        }
    }

    fn described() -> SettingCatalogue {
        let diagnostics = Diagnostics::describing();
        Table::document(&diagnostics, &DeTable::new(), EngineSection::read);
        diagnostics.into_catalogue()
    }

    #[test]
    fn one_declaration_describes_and_reads_a_setting() {
        let rows: Vec<_> = described().settings.iter().map(|s| (s.path.clone(), s.sentence, s.unbuilt)).collect();
        let expected = [
            ("label".to_owned(), "What it is called; absent: nothing.", None),
            ("turns".to_owned(), "The most turns in a second.", None),
            ("reverse".to_owned(), "Whether it may run backwards.", Some("it would run forwards")),
        ];
        assert_eq!(rows, expected);
        let text = "turns = 3\nreverse = true\n";
        let diagnostics = Diagnostics::new(text, &EmptyEnvironment);
        let document = DeTable::parse(text).expect("it is TOML");
        let engine = Table::document(&diagnostics, document.get_ref(), EngineSection::read);
        assert_eq!((engine.limits.turns.value, engine.reverse.value), (3, true));
        assert!(engine.label.is_none());
        assert_eq!(EngineLimitsSection::NAMES, ["turns"]);
    }
}

//! Declaring a table of the file: each of its settings once, with everything that is known of it.
//!
//! [`section!`] makes the struct that mirrors the table and the function that reads it from one list, so
//! that a setting cannot be read without a sentence, nor described without being read. Start reading at the
//! example of the macro.

/// What is declared of a setting beside its type and its default. Only [`section!`] writes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SettingKey {
    /// As the file writes it.
    pub(crate) name: &'static str,
    /// What it is for, in one sentence.
    pub(crate) sentence: &'static str,
    /// What would not happen, where its feature is not built.
    pub(crate) unbuilt: Option<&'static str>,
}

impl SettingKey {
    /// A setting whose feature is built.
    pub(crate) const fn new(name: &'static str, sentence: &'static str) -> Self {
        Self { name, sentence: sentence.trim_ascii(), unbuilt: None }
    }

    /// The same, not built yet: `why` completes the warning that is given where it is set.
    pub(crate) const fn unbuilt(self, why: &'static str) -> Self {
        Self { unbuilt: Some(why), ..self }
    }
}

/// Declares a table of the file: the struct that mirrors it, and `read`, which reads it in the order of the
/// declaration.
///
/// ```text
/// section! {
///     /// `[store]`
///     pub(in crate::config) struct StoreSection {
///         /// How long receipts are kept; absent: for ever.
///         retention: Option<Located<DayCount>> = optional(),
///     }
/// }
/// ```
///
/// The comment is the setting's sentence in the schema and in `docs/configuration.md`; what follows `=` is a
/// method of [`Table`](super::Table) without its first argument, the [`SettingKey`]. A setting needs both,
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
            $($visibility $name: $crate::config::reader::Located<String>,)?
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
            /// The names of its settings.
            #[allow(dead_code, reason = "used where a table may not hold these settings")]
            $visibility const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Reads each setting in the order of the declaration.
            $visibility fn read(
                $($name: $crate::config::reader::Located<String>,)?
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

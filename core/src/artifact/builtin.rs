//! The artifacts that are part of the program.

use super::definition::Definition;
use super::load::load;

macro_rules! files {
    ($($name:literal,)*) => {
        /// File names and texts.
        pub(super) const FILES: &[(&str, &str)] = &[$((
            concat!($name, ".yaml"),
            include_str!(concat!("../../artifacts/", $name, ".yaml")),
        ),)*];
    };
}

files! {
    "Generic.Client.Info",
}

/// All of them. One that does not load is left out; a test sees to it that there is none.
pub(super) fn definitions() -> Vec<Definition> {
    let files = FILES.iter();
    let loaded = files.filter_map(|(file, text)| load(file, text).ok());
    loaded.map(|loaded| loaded.definition).collect()
}

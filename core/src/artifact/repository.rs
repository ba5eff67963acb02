//! The artifacts by name: those that are built in, and above them those that people add.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::builtin;
use super::definition::{Definition, Kind, Query};
use super::names::suggestion;

/// Where an artifact comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Part of the program.
    BuiltIn,
    /// Added by somebody; it hides a built-in one of the same name.
    Custom,
}

/// One line of a list of artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, or one of its other names.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Where it comes from.
    pub origin: Origin,
    /// The artifact that this is another name of.
    pub alias_of: Option<String>,
}

type Named = BTreeMap<String, Arc<Definition>>;

/// A set of artifacts. Copying one is cheap enough to do for every change: definitions are shared.
#[derive(Debug, Clone)]
pub struct Repository {
    builtin: Arc<Named>,
    custom: Named,
    /// Other names, with the artifacts renamed so.
    aliases: Named,
}

impl Default for Repository {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Repository {
    /// The built-in artifacts.
    #[must_use]
    pub fn builtin() -> Self {
        static BUILT_IN: LazyLock<Arc<Named>> = LazyLock::new(|| {
            let named = builtin::definitions().into_iter();
            Arc::new(
                named
                    .map(|loaded| (loaded.name.clone(), Arc::new(loaded)))
                    .collect(),
            )
        });
        Self::over(Arc::clone(&BUILT_IN))
    }

    /// No artifacts at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::over(Arc::default())
    }

    fn over(builtin: Arc<Named>) -> Self {
        let mut repository = Self {
            builtin,
            custom: Named::new(),
            aliases: Named::new(),
        };
        repository.name_again();
        repository
    }

    /// Adds an artifact, in place of one of the same name.
    pub fn insert(&mut self, definition: Definition) {
        self.extend([definition]);
    }

    /// Adds many artifacts.
    pub fn extend(&mut self, definitions: impl IntoIterator<Item = Definition>) {
        let named = definitions.into_iter();
        self.custom
            .extend(named.map(|definition| (definition.name.clone(), Arc::new(definition))));
        self.name_again();
    }

    /// Removes an artifact that was added; a built-in one of this name is seen again. Says
    /// whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let removed = self.custom.remove(name).is_some();
        self.name_again();
        removed
    }

    /// The artifact of a name or alias. An alias gives the artifact under that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Definition>> {
        let named = self.custom.get(name).or_else(|| self.builtin.get(name));
        named.or_else(|| self.aliases.get(name)).cloned()
    }

    /// The artifact that people put in place of another one: `Custom.Name` if there is such a
    /// one, else `Name`.
    #[must_use]
    pub fn get_preferred(&self, name: &str) -> Option<Arc<Definition>> {
        self.get(&format!("Custom.{name}"))
            .or_else(|| self.get(name))
    }

    /// Every name, sorted, aliases too.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self
            .visible()
            .map(|(definition, origin)| Entry {
                name: definition.name.clone(),
                kind: definition.kind,
                origin,
                alias_of: None,
            })
            .collect();
        for (definition, origin) in self.visible() {
            let named = definition
                .aliases
                .iter()
                .filter(|alias| self.is_alias(alias));
            entries.extend(named.map(|alias| Entry {
                name: alias.clone(),
                kind: definition.kind,
                origin,
                alias_of: Some(definition.name.clone()),
            }));
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        entries.dedup_by(|left, right| left.name == right.name);
        entries
    }

    /// Every artifact that is seen, in no order.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.visible().map(|(definition, _)| definition)
    }

    /// The artifacts that call or import one by this name, sorted.
    #[must_use]
    pub fn dependents(&self, name: &str) -> Vec<String> {
        let needs = |query: &Query| query.calls.iter().any(|call| call == name);
        let mut dependents: Vec<String> = self
            .visible()
            .filter(|(definition, _)| {
                definition.imports.iter().any(|import| import == name)
                    || needs(&definition.export)
                    || needs(&definition.precondition)
                    || definition
                        .sources
                        .iter()
                        .any(|source| needs(&source.query) || needs(&source.precondition))
            })
            .map(|(definition, _)| definition.name.clone())
            .collect();
        dependents.sort();
        dependents
    }

    /// Whether an artifact of this name is part of the program, seen or hidden.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains_key(name)
    }

    /// Whether somebody added an artifact of this name.
    #[must_use]
    pub fn is_custom(&self, name: &str) -> bool {
        self.custom.contains_key(name)
    }

    /// `: did you mean X` for a name that is not there, or nothing.
    pub(super) fn hint(&self, name: &str) -> String {
        let names = self.builtin.keys().chain(self.custom.keys());
        suggestion(name, names.chain(self.aliases.keys()).map(String::as_str))
    }

    fn is_alias(&self, name: &str) -> bool {
        self.aliases.contains_key(name)
            && !self.custom.contains_key(name)
            && !self.builtin.contains_key(name)
    }

    fn visible(&self) -> impl Iterator<Item = (&Definition, Origin)> {
        let hidden = |name: &str| self.custom.contains_key(name);
        let builtin = self.builtin.iter().filter(move |(name, _)| !hidden(name));
        let builtin = builtin.map(|(_, definition)| (definition.as_ref(), Origin::BuiltIn));
        let custom = self.custom.values();
        builtin.chain(custom.map(|definition| (definition.as_ref(), Origin::Custom)))
    }

    fn name_again(&mut self) {
        let mut aliases = Named::new();
        for (definition, _) in self.visible() {
            for alias in &definition.aliases {
                let renamed = Definition {
                    name: alias.clone(),
                    ..definition.clone()
                };
                aliases.insert(alias.clone(), Arc::new(renamed));
            }
        }
        self.aliases = aliases;
    }
}

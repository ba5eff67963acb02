//! Finds the artifacts that have to be sent along, since agents know none of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nublar_schemas::agent;

use super::definition::{Definition, Query};
use super::error::CompileError;
use super::repository::Repository;
use super::tools::Tools;

/// Artifacts that queries call, and those that they call in turn.
pub(super) struct Closure<'r> {
    repository: &'r Repository,
    found: BTreeMap<String, Arc<Definition>>,
    /// Whose sources were followed; of what is only imported, the export alone runs.
    followed: BTreeSet<String>,
}

impl<'r> Closure<'r> {
    pub(super) fn new(repository: &'r Repository) -> Self {
        Self {
            repository,
            found: BTreeMap::new(),
            followed: BTreeSet::new(),
        }
    }

    /// Follows what a query of an artifact calls.
    pub(super) fn follow(&mut self, caller: &str, query: &Query) -> Result<(), CompileError> {
        let mut open: Vec<Arc<Definition>> = Vec::new();
        self.step(caller, query, &mut open)?;
        while let Some(definition) = open.pop() {
            let name = &definition.name;
            self.step(name, &definition.export, &mut open)?;
            self.step(name, &definition.precondition, &mut open)?;
            for source in &definition.sources {
                self.step(name, &source.precondition, &mut open)?;
                self.step(name, &source.query, &mut open)?;
            }
            for import in &definition.imports {
                let imported = find(self.repository, name, import)?;
                self.found.insert(import.clone(), Arc::clone(&imported));
                self.step(import, &imported.export, &mut open)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        caller: &str,
        query: &Query,
        open: &mut Vec<Arc<Definition>>,
    ) -> Result<(), CompileError> {
        for name in &query.calls {
            let definition = find(self.repository, caller, name)?;
            self.add(definition, open);
        }
        for name in &query.mentions {
            if let Some(definition) = self.repository.get(name) {
                self.add(definition, open);
            }
        }
        Ok(())
    }

    fn add(&mut self, definition: Arc<Definition>, open: &mut Vec<Arc<Definition>>) {
        if self.followed.insert(definition.name.clone()) {
            self.found
                .insert(definition.name.clone(), Arc::clone(&definition));
            open.push(definition);
        }
    }

    /// Whether any of them needs the right to run programs.
    pub(super) fn needs_execve(&self) -> bool {
        self.found.values().any(|found| found.needs_execve())
    }

    /// What is sent of them: no more than an agent needs to run them.
    pub(super) fn artifacts(&self, tools: &Tools) -> Result<Vec<agent::Artifact>, CompileError> {
        self.found
            .values()
            .map(|definition| stripped(definition, tools))
            .collect()
    }
}

/// An artifact that another one needs.
pub(super) fn find(
    repository: &Repository,
    caller: &str,
    name: &str,
) -> Result<Arc<Definition>, CompileError> {
    repository
        .get(name)
        .ok_or_else(|| CompileError::MissingDependency {
            artifact: caller.to_owned(),
            dependency: name.to_owned(),
            hint: repository.hint(name),
        })
}

fn stripped(definition: &Definition, tools: &Tools) -> Result<agent::Artifact, CompileError> {
    let declared = definition
        .parameters
        .iter()
        .map(|parameter| agent::ArtifactParameter {
            name: parameter.name.clone(),
            default: parameter.default.clone(),
            r#type: parameter.kind.clone(),
            ..agent::ArtifactParameter::default()
        });
    // What is called does not see the caller's variables.
    let mut parameters: Vec<_> = declared.collect();
    for tool in &definition.tools {
        for (name, default) in tools.variables(&definition.name, tool)? {
            parameters.push(agent::ArtifactParameter {
                name,
                default,
                ..agent::ArtifactParameter::default()
            });
        }
    }
    let sources = definition
        .sources
        .iter()
        .map(|source| agent::ArtifactSource {
            name: source.name.clone(),
            precondition: source.precondition.text(),
            queries: source.query.statements.clone(),
            ..agent::ArtifactSource::default()
        });
    Ok(agent::Artifact {
        name: definition.name.clone(),
        r#type: definition.kind.as_str().to_owned(),
        precondition: definition.precondition.text(),
        export: definition.export.text(),
        imports: definition.imports.clone(),
        parameters,
        sources: sources.collect(),
        ..agent::Artifact::default()
    })
}

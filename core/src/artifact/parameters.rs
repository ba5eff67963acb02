//! Whether the values that people give are allowed.

use std::sync::Arc;

use regex::Regex;

use super::collect::Wanted;
use super::definition::{Definition, Parameter};
use super::error::CompileError;
use super::names::{nearest, suggestion};

/// What stands in every copy of a wish in place of a secret.
pub const MASK: &str = "********";

/// Whether a value is a secret: somebody gave it for a parameter of type `redacted`.
fn is_secret(parameter: &Parameter, value: &str) -> bool {
    parameter.kind == "redacted" && !value.is_empty() && value != parameter.default
}

/// The names of the parameters for which secrets are given.
pub(super) fn secrets<'w>(
    definition: &Definition,
    wanted: &'w Wanted,
) -> impl Iterator<Item = &'w String> {
    let given = wanted.parameters.iter();
    given.filter_map(move |(name, value)| {
        let parameter = definition.parameter(name)?;
        is_secret(parameter, value).then_some(name)
    })
}

/// Checks each value that is given for a parameter the artifact declares. Defaults are never
/// checked: they are the author's. Tables of events take no secrets.
pub(super) fn check(definition: &Definition, wanted: &Wanted) -> Result<(), CompileError> {
    for (name, value) in &wanted.parameters {
        let Some(parameter) = definition.parameter(name) else {
            continue;
        };
        if *value == parameter.default {
            continue;
        }
        match parameter.kind.as_str() {
            "redacted" => secret(definition, parameter, value)?,
            "multichoice" => {
                // What is no list of texts is left to the agent, which takes it as a value.
                let values: Vec<String> = serde_json::from_str(value).unwrap_or_default();
                for value in &values {
                    choice(definition, parameter, value)?;
                }
            }
            _ => choice(definition, parameter, value)?,
        }
        matches(definition, parameter, value)?;
    }
    Ok(())
}

/// Refuses a name that its artifact does not declare, naming all artifacts that it was given to.
/// What is written as the settings are that agents read from their environment is passed on.
pub(super) fn declared(artifacts: &[(Arc<Definition>, &Wanted)]) -> Result<(), CompileError> {
    let mut given = artifacts.iter().flat_map(|(definition, wanted)| {
        let names = wanted.parameters.keys();
        names.filter(|name| !is_setting(name) && definition.parameter(name).is_none())
    });
    let Some(parameter) = given.next() else {
        return Ok(());
    };
    let of: Vec<&Definition> = artifacts
        .iter()
        .filter(|(definition, wanted)| {
            wanted.parameters.contains_key(parameter) && definition.parameter(parameter).is_none()
        })
        .map(|(definition, _)| definition.as_ref())
        .collect();
    let mut declared: Vec<&str> = of
        .iter()
        .flat_map(|definition| &definition.parameters)
        .map(|parameter| parameter.name.as_str())
        .collect();
    declared.sort_unstable();
    declared.dedup();
    let there = match (declared.as_slice(), of.len()) {
        ([], 1) => "it has none".to_owned(),
        ([], _) => "they have none".to_owned(),
        (some, 1) => format!("it has {}", some.join(", ")),
        (some, _) => format!("they have {}", some.join(", ")),
    };
    let near = suggestion(parameter, declared.iter().copied());
    let names: Vec<&str> = of.iter().map(|artifact| artifact.name.as_str()).collect();
    Err(CompileError::UnknownParameter {
        artifacts: names.join(", "),
        parameter: parameter.clone(),
        hint: format!("{near}; {there}"),
    })
}

/// `UPLOAD_IS_RESUMABLE` and its like: agents read them, whichever artifact runs.
fn is_setting(name: &str) -> bool {
    let all = |character: char| matches!(character, 'A'..='Z' | '0'..='9' | '_');
    !name.is_empty() && name.chars().all(all)
}

fn choice(definition: &Definition, parameter: &Parameter, value: &str) -> Result<(), CompileError> {
    let choices = &parameter.choices;
    if choices.is_empty() || choices.iter().any(|choice| choice == value) {
        return Ok(());
    }
    let hint = match nearest(value, choices.iter().map(String::as_str)) {
        Some(near) => format!(": did you mean {near}"),
        None => format!(": choose from {}", choices.join(", ")),
    };
    Err(CompileError::NoSuchChoice {
        artifact: definition.name.clone(),
        parameter: parameter.name.clone(),
        value: value.to_owned(),
        hint,
    })
}

/// Where a secret may stand, and that it is one. Of its text nothing is ever said.
fn secret(definition: &Definition, parameter: &Parameter, value: &str) -> Result<(), CompileError> {
    let artifact = definition.name.clone();
    let parameter = parameter.name.clone();
    if definition.kind.is_event() && !value.is_empty() {
        return Err(CompileError::Secret {
            artifact,
            parameter,
        });
    }
    if value == MASK {
        return Err(CompileError::Masked {
            artifact,
            parameter,
        });
    }
    Ok(())
}

/// An expression that this kind of matching does not know (look-around) allows everything.
fn matches(
    definition: &Definition,
    parameter: &Parameter,
    value: &str,
) -> Result<(), CompileError> {
    if parameter.validating_regex.is_empty() {
        return Ok(());
    }
    match Regex::new(&parameter.validating_regex) {
        Ok(regex) if !regex.is_match(value) => Err(CompileError::NoMatch {
            artifact: definition.name.clone(),
            parameter: parameter.name.clone(),
            value: if is_secret(parameter, value) {
                MASK.to_owned()
            } else {
                value.to_owned()
            },
            regex: parameter.validating_regex.clone(),
        }),
        _ => Ok(()),
    }
}

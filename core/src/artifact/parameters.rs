//! Whether the values that people give are allowed.

use regex::Regex;

use super::collect::Wanted;
use super::definition::{Definition, Parameter};
use super::error::CompileError;
use super::names::nearest;

/// Checks each value that is given for a parameter the artifact declares. Defaults are never
/// checked: they are the author's.
pub(super) fn check(definition: &Definition, wanted: &Wanted) -> Result<(), CompileError> {
    for (name, value) in &wanted.parameters {
        let Some(parameter) = definition.parameter(name) else {
            continue;
        };
        if *value == parameter.default {
            continue;
        }
        match parameter.kind.as_str() {
            "redacted" if !value.is_empty() => {
                return Err(CompileError::Secret {
                    artifact: definition.name.clone(),
                    parameter: name.clone(),
                });
            }
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
            value: value.to_owned(),
            regex: parameter.validating_regex.clone(),
        }),
        _ => Ok(()),
    }
}

//! Reads a file into a definition.
//!
//! What each key means stands at the fields of [`Definition`] and its parts. Keys that nobody
//! knows are reported and ignored; whatever would not run is refused, all of it at once.

use std::str::FromStr;

use super::definition::{
    Cell, Column, Definition, Kind, Metadata, Parameter, Query, Resources, Source, ToolDefinition,
};
use super::names;
use super::problem::{LoadError, Problem};
use super::query::Shape;
use super::reader::{Fields, Reader};
use super::yaml::{Document, Node, Place};

/// An artifact and what its author should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The artifact.
    pub definition: Definition,
    /// What is odd about it, in the order of the file.
    pub warnings: Vec<Problem>,
}

const TOP: [&str; 23] = [
    "name",
    "aliases",
    "description",
    "author",
    "reference",
    "references",
    "type",
    "precondition",
    "parameters",
    "sources",
    "imports",
    "export",
    "tools",
    "resources",
    "required_permissions",
    "implied_permissions",
    "impersonate",
    "column_types",
    "reports",
    "metadata",
    "built_in",
    "compiled_in",
    "raw",
];

/// Reads the text of a file; `file` is the name that findings carry.
///
/// # Errors
/// Everything that is wrong, each with file, line, column and key.
pub fn load(file: &str, text: &str) -> Result<Loaded, LoadError> {
    let whole_file = |place: Place, message: String| LoadError {
        problems: vec![Problem {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            key: String::new(),
            message,
        }],
    };
    let start = Place { line: 1, column: 1 };
    let document =
        Document::read(text).map_err(|malformed| whole_file(malformed.place, malformed.message))?;
    let Some(root) = &document.root else {
        return Err(whole_file(start, "the file is empty".to_owned()));
    };
    let mut reader = Reader::new(file, &document);
    if let Some(place) = document.second {
        reader.warn(place, "", "only the first document of a file is read");
    }
    let definition = reader
        .fields(root, "", &TOP)
        .map(|fields| artifact(&mut reader, &fields));
    let by_place = |problem: &Problem| (problem.line, problem.column);
    let (mut errors, mut warnings) = (reader.errors, reader.warnings);
    errors.sort_by_key(by_place);
    warnings.sort_by_key(by_place);
    match definition {
        Some(mut definition) if errors.is_empty() => {
            text.clone_into(&mut definition.raw);
            Ok(Loaded {
                definition,
                warnings,
            })
        }
        _ => Err(LoadError { problems: errors }),
    }
}

fn artifact<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Definition {
    let mut references = reader.texts(fields, "reference");
    references.extend(reader.texts(fields, "references"));
    let definition = Definition {
        name: name(reader, fields),
        aliases: aliases(reader, fields),
        description: reader.text(fields, "description"),
        author: reader.text(fields, "author"),
        references,
        kind: kind(reader, fields),
        precondition: vql(reader, fields, "precondition", Shape::Any),
        parameters: parameters(reader, fields),
        sources: sources(reader, fields),
        imports: reader.texts(fields, "imports"),
        export: vql(reader, fields, "export", Shape::Any),
        tools: each(reader, fields, "tools", &TOOL, tool),
        resources: resources(reader, fields),
        required_permissions: permissions(reader, fields, "required_permissions"),
        implied_permissions: permissions(reader, fields, "implied_permissions"),
        impersonate: reader.text(fields, "impersonate"),
        column_types: each(reader, fields, "column_types", &COLUMN, column),
        metadata: metadata(reader, fields),
        raw: String::new(),
    };
    check_sources(reader, fields, &definition);
    definition
}

fn name<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> String {
    let scalar = reader.scalar(fields, "name");
    let place = scalar.map_or(fields.place, |(_, place)| place);
    let name = scalar
        .map(|(scalar, _)| scalar.text.clone())
        .unwrap_or_default();
    if let Some(fault) = names::fault(&name) {
        reader.error(place, "name", fault);
    }
    name
}

fn aliases<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Vec<String> {
    let aliases = reader.texts(fields, "aliases");
    let place = place(fields, "aliases");
    for fault in aliases.iter().filter_map(|alias| names::fault(alias)) {
        reader.error(place, "aliases", fault);
    }
    aliases
}

fn kind<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Kind {
    let text = reader.text(fields, "type");
    Kind::from_str(&text).unwrap_or_else(|()| {
        let known = Kind::ALL.map(Kind::as_str);
        let hint = names::suggestion(&text, known);
        let known = known.join(", ");
        let message = format!("unknown type {text:?}{hint}; the types are {known}");
        reader.error(place(fields, "type"), "type", message);
        Kind::default()
    })
}

fn place(fields: &Fields<'_>, key: &str) -> Place {
    let pair = fields.get(key);
    pair.map_or(fields.place, |pair| pair.value.place)
}

fn vql<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>, key: &str, shape: Shape) -> Query {
    match reader.scalar(fields, key) {
        Some((scalar, _)) => reader.query(&fields.path(key), &[scalar], shape),
        None => Query::default(),
    }
}

/// The items of a list, each read by a function.
fn each<'d, T>(
    reader: &mut Reader<'d>,
    fields: &Fields<'d>,
    key: &str,
    known: &[&str],
    read: impl Fn(&mut Reader<'d>, &Fields<'d>) -> T,
) -> Vec<T> {
    let mut items = Vec::new();
    for (node, path) in reader.list(fields, key) {
        let node: &'d Node = node;
        if let Some(item) = reader.fields(node, &path, known) {
            items.push(read(reader, &item));
        }
    }
    items
}

const PARAMETER: [&str; 9] = [
    "name",
    "default",
    "description",
    "friendly_name",
    "type",
    "choices",
    "validating_regex",
    "artifact_type",
    "sources",
];

fn parameters<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Vec<Parameter> {
    let parameters = each(
        reader,
        fields,
        "parameters",
        &PARAMETER,
        |reader, fields| {
            let parameter = Parameter {
                name: reader.text(fields, "name"),
                default: reader.text(fields, "default"),
                description: reader.text(fields, "description"),
                friendly_name: reader.text(fields, "friendly_name"),
                kind: reader.text(fields, "type"),
                choices: reader.texts(fields, "choices"),
                validating_regex: reader.text(fields, "validating_regex"),
                artifact_type: reader.text(fields, "artifact_type"),
                sources: reader.flag(fields, "sources"),
            };
            if parameter.name.is_empty() {
                reader.warn(
                    fields.place,
                    &fields.path("name"),
                    "this parameter has no name",
                );
            }
            (parameter, fields.place, fields.path("name"))
        },
    );
    for (index, (parameter, place, path)) in parameters.iter().enumerate() {
        let earlier = parameters.get(..index).unwrap_or_default();
        if earlier
            .iter()
            .any(|(other, ..)| other.name == parameter.name)
        {
            let message = format!("the parameter {} is declared twice", parameter.name);
            reader.warn(*place, path, message);
        }
    }
    parameters
        .into_iter()
        .map(|(parameter, ..)| parameter)
        .collect()
}

const SOURCE: [&str; 6] = [
    "name",
    "description",
    "precondition",
    "query",
    "queries",
    "notebook",
];

fn sources<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Vec<Source> {
    each(reader, fields, "sources", &SOURCE, |reader, fields| {
        let mut query = vql(reader, fields, "query", Shape::Source);
        if query.is_empty() {
            let texts = reader.scalars(fields, "queries");
            query = reader.query(&fields.path("queries"), &texts, Shape::Source);
        } else if fields.get("queries").is_some() {
            let message = "`queries` is ignored beside `query`: keep one of them";
            reader.warn(place(fields, "queries"), &fields.path("queries"), message);
        }
        Source {
            name: reader.text(fields, "name"),
            description: reader.text(fields, "description"),
            precondition: vql(reader, fields, "precondition", Shape::Any),
            query,
            notebook: cells(reader, fields),
        }
    })
}

fn check_sources<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>, definition: &Definition) {
    for (index, (node, path)) in reader.list(fields, "sources").into_iter().enumerate() {
        let Some(source) = definition.sources.get(index) else {
            break;
        };
        if !(definition.precondition.is_empty() || source.precondition.is_empty()) {
            let message = "the artifact has a precondition already: keep one of them";
            reader.error(node.place, &format!("{path}.precondition"), message);
        }
        let earlier = definition.sources.get(..index).unwrap_or_default();
        let twin = earlier.iter().find(|other| other.name == source.name);
        let alternatives = twin
            .is_some_and(|twin| !(twin.precondition.is_empty() || source.precondition.is_empty()));
        if twin.is_some() && !alternatives {
            let name = definition.result_name(source);
            let message = format!(
                "another source's rows are called {name} too: give this one a name of its own"
            );
            reader.warn(node.place, &format!("{path}.name"), message);
        }
    }
}

const CELL: [&str; 5] = ["type", "name", "template", "output", "env"];
const CELL_KINDS: [&str; 6] = [
    "md",
    "markdown",
    "vql",
    "vql_suggestion",
    "notebook",
    "none",
];

fn cells<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Vec<Cell> {
    each(reader, fields, "notebook", &CELL, |reader, fields| {
        let kind = reader.text(fields, "type").to_ascii_lowercase();
        if !CELL_KINDS.contains(&kind.as_str()) {
            let known = CELL_KINDS.join(", ");
            let message = format!("unknown kind of cell {kind:?}; the kinds are {known}");
            reader.error(place(fields, "type"), &fields.path("type"), message);
        }
        Cell {
            kind,
            name: reader.text(fields, "name"),
            template: reader.text(fields, "template"),
            output: reader.text(fields, "output"),
            env: each(
                reader,
                fields,
                "env",
                &["key", "value"],
                |reader, fields| (reader.text(fields, "key"), reader.text(fields, "value")),
            ),
        }
    })
}

const TOOL: [&str; 7] = [
    "name",
    "url",
    "github_project",
    "github_asset_regex",
    "serve_locally",
    "expected_hash",
    "version",
];

fn tool<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> ToolDefinition {
    ToolDefinition {
        name: reader.text(fields, "name"),
        url: reader.text(fields, "url"),
        github_project: reader.text(fields, "github_project"),
        github_asset_regex: reader.text(fields, "github_asset_regex"),
        serve_locally: reader.flag(fields, "serve_locally"),
        expected_hash: reader.text(fields, "expected_hash"),
        version: reader.text(fields, "version"),
    }
}

const RESOURCES: [&str; 9] = [
    "timeout",
    "max_rows",
    "max_upload_bytes",
    "ops_per_second",
    "cpu_limit",
    "iops_limit",
    "max_batch_wait",
    "max_batch_rows",
    "max_batch_rows_buffer",
];

fn resources<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Resources {
    let Some(fields) = part(reader, fields, "resources", &RESOURCES) else {
        return Resources::default();
    };
    Resources {
        timeout: reader.number(&fields, "timeout"),
        max_rows: reader.number(&fields, "max_rows"),
        max_upload_bytes: reader.number(&fields, "max_upload_bytes"),
        ops_per_second: reader.float(&fields, "ops_per_second"),
        cpu_limit: reader.float(&fields, "cpu_limit"),
        iops_limit: reader.float(&fields, "iops_limit"),
        max_batch_wait: reader.number(&fields, "max_batch_wait"),
        max_batch_rows: reader.number(&fields, "max_batch_rows"),
        max_batch_rows_buffer: reader.number(&fields, "max_batch_rows_buffer"),
    }
}

fn metadata<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Metadata {
    let Some(fields) = part(reader, fields, "metadata", &["hidden", "basic", "tags"]) else {
        return Metadata::default();
    };
    Metadata {
        hidden: reader.flag(&fields, "hidden"),
        basic: reader.flag(&fields, "basic"),
        tags: reader.texts(&fields, "tags"),
    }
}

fn part<'d>(
    reader: &mut Reader<'d>,
    fields: &Fields<'d>,
    key: &str,
    known: &[&str],
) -> Option<Fields<'d>> {
    let pair = fields.get(key)?;
    reader.fields(&pair.value, &fields.path(key), known)
}

const COLUMN: [&str; 3] = ["name", "type", "description"];

fn column<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>) -> Column {
    Column {
        name: reader.text(fields, "name"),
        kind: reader.text(fields, "type"),
        description: reader.text(fields, "description"),
    }
}

const PERMISSIONS: [&str; 22] = [
    "ANY_QUERY",
    "READ_RESULTS",
    "COLLECT_CLIENT",
    "COLLECT_BASIC",
    "COLLECT_SERVER",
    "START_HUNT",
    "LABEL_CLIENT",
    "EXECVE",
    "ARTIFACT_WRITER",
    "SERVER_ARTIFACT_WRITER",
    "NOTEBOOK_EDITOR",
    "SERVER_ADMIN",
    "ORG_ADMIN",
    "IMPERSONATION",
    "FILESYSTEM_READ",
    "FILESYSTEM_WRITE",
    "NETWORK",
    "MACHINE_STATE",
    "PREPARE_RESULTS",
    "DELETE_RESULTS",
    "DATASTORE_ACCESS",
    "PUBLISH",
];

fn permissions<'d>(reader: &mut Reader<'d>, fields: &Fields<'d>, key: &str) -> Vec<String> {
    let permissions = reader.texts(fields, key);
    let place = place(fields, key);
    for permission in &permissions {
        if !PERMISSIONS.contains(&permission.as_str()) {
            let hint = names::suggestion(permission, PERMISSIONS);
            let message = format!("unknown permission {permission}, which nobody has{hint}");
            reader.warn(place, key, message);
        }
    }
    permissions
}

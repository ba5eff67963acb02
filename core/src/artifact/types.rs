//! Turns the text of a parameter into a value of its type, on the agent.

use super::definition::Parameter;

/// Statements that give the variable of a parameter its type; none for a text.
pub(super) fn conversion(parameter: &Parameter) -> Vec<String> {
    let name = variable(&parameter.name);
    let value = match parameter.kind.as_str() {
        "int" | "int64" | "integer" => format!("int(int={name})"),
        "float" => format!("parse_float(string={name})"),
        "timestamp" => format!("timestamp(epoch={name})"),
        "bool" => {
            let field = format!("get(field={})", text(&parameter.name));
            format!("{field} = TRUE OR {field} =~ '^(Y|TRUE|YES|OK)$'")
        }
        "csv" | "artifactset" => {
            let rows = format!("{{ SELECT * FROM parse_csv(filename={name}, accessor='data') }}");
            format!("SELECT * FROM {}", from_text(&name, &rows))
        }
        "json" => from_text(&name, &format!("parse_json(data={name})")),
        "json_array" | "regex_array" | "multichoice" => {
            from_text(&name, &format!("parse_json_array(data={name})"))
        }
        "yaml" => from_text(
            &name,
            &format!("parse_yaml(filename={name}, accessor='data')"),
        ),
        "xml" => from_text(&name, &format!("parse_xml(file={name}, accessor='data')")),
        "starlark" => from_text(&name, &format!("starl(code={name})")),
        "upload" => return fetched(parameter, ""),
        "upload_file" => return fetched(parameter, ", tempfile_extension='.tmp'"),
        _ => return Vec::new(),
    };
    vec![format!("LET {name} <= {value}")]
}

/// Converts the variable only while it is a text: a calling artifact may pass the value itself.
fn from_text(name: &str, converted: &str) -> String {
    format!(
        "if(condition=format(format='%T', args=[{name},]) =~ 'string', then={converted}, else={name})"
    )
}

/// Fetches the file whose URL the parameter holds.
fn fetched(parameter: &Parameter, options: &str) -> Vec<String> {
    let name = variable(&parameter.name);
    let rows = variable(&format!("{}_", parameter.name));
    vec![
        format!(
            "LET {rows} <= if(condition={name}, then={{ SELECT Content FROM http_client(url={name}{options}) }})"
        ),
        format!("LET {name} <= {rows}.Content[0]"),
    ]
}

/// A name as a variable in VQL.
fn variable(name: &str) -> String {
    let odd = |c: char| matches!(c, ' ' | '.' | '-' | '"' | '\'');
    if name.contains(odd) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("`{name}`");
    }
    name.to_owned()
}

/// A name as a string in VQL.
fn text(name: &str) -> String {
    format!("'{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(name: &str, kind: &str) -> Vec<String> {
        conversion(&Parameter {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..Parameter::default()
        })
    }

    #[test]
    fn texts_stay_texts() {
        for kind in [
            "", "string", "regex", "yara", "hidden", "choices", "Int", "other",
        ] {
            assert!(converted("X", kind).is_empty(), "{kind}");
        }
    }

    #[test]
    fn types_become_lets_that_parse() {
        assert_eq!(converted("X", "int64"), ["LET X <= int(int=X)"]);
        assert_eq!(
            converted("a b", "bool"),
            ["LET `a b` <= get(field='a b') = TRUE OR get(field='a b') =~ '^(Y|TRUE|YES|OK)$'"]
        );
        let kinds = [
            "int",
            "float",
            "timestamp",
            "bool",
            "csv",
            "artifactset",
            "json",
            "json_array",
            "regex_array",
            "multichoice",
            "yaml",
            "xml",
            "starlark",
            "upload",
            "upload_file",
        ];
        for kind in kinds {
            for name in ["Name", "a-b", "9lives", "it's"] {
                let statements = converted(name, kind);
                assert!(!statements.is_empty(), "{kind}");
                let parsed = nublar_vql::parse(&statements.join("\n"));
                assert_eq!(parsed.diagnostics, [], "{kind} {name}");
                assert_eq!(parsed.tree.statements.len(), statements.len());
            }
        }
    }
}

//! What stands behind the ports is known to the ports alone.

use std::path::{Path, PathBuf};

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Whether a line names an engine, whatever it is part of; `s3` counts as a word alone.
fn names_an_engine(line: &str) -> bool {
    let line = line.to_lowercase();
    ["kafka", "sqlite", "opensearch"]
        .iter()
        .any(|engine| line.contains(engine))
        || line
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word == "s3")
}

#[test]
fn no_file_outside_of_the_ports_names_an_engine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    rust_files(root, &mut files);
    let (mut inside, mut looked_at, mut naming) = (0, 0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root).unwrap();
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| names_an_engine(line));
        if path.starts_with("ports") || path.starts_with("tests") {
            inside += lines.count();
        } else {
            looked_at += 1;
            naming.extend(lines.map(|(at, line)| format!("{}:{}: {line}", path.display(), at + 1)));
        }
    }
    assert!(naming.is_empty(), "{naming:#?}");
    // What looks must be able to find.
    assert!(looked_at > 100 && inside > 100, "{looked_at} {inside}");
    assert!(names_an_engine("use aws_sdk_s3::Client;"));
    assert!(!names_an_engine("let elf64s32 = 1;"));
}

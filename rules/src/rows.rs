//! The rows of a table that stands in a file: CSV with a header line, or a list of mappings in JSON or YAML.

use std::collections::BTreeMap;
use std::path::Path;

use crate::diagnostic::Report;
use crate::yaml::{self, Data, FILE_BYTES_MAX, Node, Scalar};

/// Most rows.
const ROWS_MAX: usize = 100_000;

/// Reads the text of a file that a rule file names, by its path relative to that rule file.
pub(crate) type FileText<'f> = dyn Fn(&str) -> Result<String, String> + 'f;

type Row = BTreeMap<String, String>;

/// The rows of a file; its ending says what is in it.
pub(crate) fn read(file: &str, text: &FileText<'_>) -> Result<Vec<Row>, String> {
    let path = Path::new(file);
    if file.is_empty() || path.is_absolute() {
        return Err("`from` is the path of a file beside the rule, relative to it".to_owned());
    }
    let kind = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !matches!(kind.as_str(), "csv" | "json" | "yml" | "yaml") {
        return Err(format!("`{file}` is neither .csv, .json nor .yml"));
    }
    let text = text(file)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("`{file}` has more than {FILE_BYTES_MAX} bytes"));
    }
    let rows = match kind.as_str() {
        "csv" => from_csv(&text),
        // JSON is read as the YAML it is, with the same limits.
        _ => from_yaml(file, &text),
    };
    let rows = rows.map_err(|problem| format!("`{file}`: {problem}"))?;
    if rows.len() > ROWS_MAX {
        return Err(format!("`{file}` has more than {ROWS_MAX} rows"));
    }
    Ok(rows)
}

fn from_csv(text: &str) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let mut names: Vec<&str> = header.iter().collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first())).flatten()
    {
        return Err(format!("the column `{twice}` stands in the header twice"));
    }
    let mut rows = Vec::new();
    for record in reader.records().take(ROWS_MAX + 1) {
        let record = record.map_err(|error| error.to_string())?;
        let cells = header.iter().zip(record.iter()).filter(|(_, cell)| !cell.is_empty());
        rows.push(cells.map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect());
    }
    Ok(rows)
}

fn from_yaml(file: &str, text: &str) -> Result<Vec<Row>, String> {
    let mut report = Report::new(file);
    let documents = yaml::read(text, &mut report);
    if let Some(problem) = report.found.first() {
        return Err(format!("line {}: {}", problem.place.line, problem.message));
    }
    let rows = match documents.as_slice() {
        [document] => document.list(),
        _ => None,
    };
    let Some(rows) = rows else { return Err("it is no list of mappings".to_owned()) };
    rows.iter().map(row).collect()
}

fn row(node: &Node) -> Result<Row, String> {
    let at = node.place.line;
    let Some(entries) = node.map() else { return Err(format!("line {at}: a row must be a mapping")) };
    let mut row = Row::new();
    for (key, value) in entries {
        match (&value.data, value.scalar()) {
            (_, Some(Scalar::Null)) => {}
            (Data::Scalar(text, _), _) => drop(row.insert(key.text.clone(), text.clone())),
            _ => return Err(format!("line {}: a cell must be a single value", value.place.line)),
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(file: &str, text: &str) -> Result<String, String> {
        let rows = read(file, &|_| Ok(text.to_owned()))?;
        let shown = rows.iter().map(|row| row.iter().map(|(key, cell)| format!("{key}={cell}")).collect::<Vec<_>>().join(","));
        Ok(shown.collect::<Vec<_>>().join(" | "))
    }

    #[test]
    fn files_of_each_kind() {
        assert_eq!(rows("a.csv", "repo,owner\na/b,\"x, y\"\nc/d,\n").unwrap(), "owner=x, y,repo=a/b | repo=c/d");
        assert_eq!(rows("a.json", "[{\"repo\": \"a/b\", \"tier\": 1}, {\"repo\": null}]").unwrap(), "repo=a/b,tier=1 | ");
        assert_eq!(rows("x/a.yml", "- {repo: a/b}\n- repo: 'c'\n").unwrap(), "repo=a/b | repo=c");
        for (file, text, said) in [
            ("a.txt", "", "neither"),
            ("/etc/a.csv", "", "relative"),
            ("a.csv", "a,a\n1,2\n", "twice"),
            ("a.csv", "a,b\n1\n", "found record with 1 fields"),
            ("a.json", "{}", "no list"),
            ("a.yml", "- [x]\n", "line 1: a row"),
            ("a.yml", "- {a: [x]}\n", "single value"),
            ("a.yml", "- {a: x\n", "line"),
        ] {
            let error = rows(file, text).unwrap_err();
            assert!(error.contains(said), "{file} {text}: {error}");
        }
        let many = format!("a\n{}", "1\n".repeat(ROWS_MAX + 1));
        assert!(rows("a.csv", &many).unwrap_err().contains("more than 100000 rows"));
    }
}

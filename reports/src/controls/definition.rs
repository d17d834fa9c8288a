//! What a control test is: one YAML file with its wording, what it reads, its parameters, and its two queries.
//!
//! A query is DataFusion SQL over the fact views, with `:P0` (inclusive) and `:P1` (exclusive) for the period, `:AS_OF` for
//! what is known, and the test's own parameters as `:name`. The period is left for whoever runs the query; the
//! parameters are written in here.

use std::collections::BTreeMap;

use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::parse_span;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Names a query may use without declaring them.
pub const RESERVED: [&str; 3] = ["P0", "P1", "AS_OF"];

/// What kind of evidence a test gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// That the control is suitably set up.
    Design,
    /// That it worked through the period.
    Operating,
    /// Both.
    Both,
}

/// A control test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Its id, `CM-06`.
    pub id: String,
    /// What holds if there is no exception.
    pub title: String,
    /// What the test does, in plain words.
    pub checks: String,
    /// What it is evidence of.
    pub strength: Strength,
    /// How often the control acts.
    pub frequency: String,
    /// Source types it reads. Each group needs at least one of its types; every connected one must be whole.
    #[serde(default)]
    pub sources: Vec<SourceGroup>,
    /// Named values its queries use.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// What is tested.
    pub population: PopulationQuery,
    /// What should not be.
    pub exceptions: ExceptionQuery,
    /// What a reader must know to read the result.
    #[serde(default)]
    pub note: Option<String>,
}

/// Source types of which one or more must be connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SourceGroup {
    /// This one.
    One(SourceType),
    /// At least one of these.
    AnyOf(Vec<SourceType>),
}

impl SourceGroup {
    /// The types.
    #[must_use]
    pub fn types(&self) -> &[SourceType] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::AnyOf(any) => any,
        }
    }
}

/// The population: every occurrence of the control in the period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PopulationQuery {
    /// What one row is.
    pub row: String,
    /// What is in and what is not.
    pub scope: String,
    /// Columns that tell rows apart.
    pub key: Vec<String>,
    /// The column with the row's time.
    pub time: String,
    /// The query.
    pub sql: String,
}

/// The exceptions: every row is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExceptionQuery {
    /// What makes a row an exception.
    pub row: String,
    /// Columns that name the row of the population it belongs to.
    pub key: Vec<String>,
    /// The query.
    pub sql: String,
}

/// A named value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it decides.
    pub means: String,
    /// Its value unless an engagement sets another.
    pub default: ParameterValue,
}

/// A parameter's value, under the name of its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterValue {
    /// A length of time, as Sigma writes it: `1h`, `30d`.
    Span(String),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
    /// Texts, at least one.
    List(Vec<String>),
}

/// What is wrong with a control test.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not the YAML of a control test.
    #[error("cannot read control test {file}: {reason}")]
    Yaml {
        /// Which file.
        file: String,
        /// What and where.
        reason: String,
    },
    /// It contradicts itself.
    #[error("control test {id}: {reason}")]
    Invalid {
        /// Which.
        id: String,
        /// How.
        reason: String,
    },
    /// A parameter was set that the test does not have, or to another kind of value.
    #[error("control test {id} has no parameter `{name}` of that kind (it has: {known})")]
    Parameter {
        /// Which test.
        id: String,
        /// The parameter.
        name: String,
        /// Those there are.
        known: String,
    },
}

/// A test's queries with its parameters written in. `:P0`, `:P1` and `:AS_OF` are still names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queries {
    /// Of the population.
    pub population: String,
    /// Of the exceptions.
    pub exceptions: String,
}

impl ParameterValue {
    /// As an SQL literal.
    fn literal(&self) -> Result<String, String> {
        let text = |text: &String| format!("'{}'", text.replace('\'', "''"));
        Ok(match self {
            Self::Span(span) => {
                let length =
                    parse_span(span).ok_or_else(|| format!("`{span}` is not a length of time such as `1h`"))?;
                format!("INTERVAL '{} seconds'", length.as_secs())
            }
            Self::Number(number) => number.to_string(),
            Self::Text(value) => text(value),
            Self::List(values) if values.is_empty() => return Err("a list holds at least one text".to_owned()),
            Self::List(values) => format!("({})", values.iter().map(text).collect::<Vec<_>>().join(", ")),
        })
    }

    fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Control {
    /// Reads a control test.
    ///
    /// # Errors
    /// [`ControlError`] names the file or id and what is wrong.
    pub fn read(file: &str, yaml: &str) -> Result<Self, ControlError> {
        let control: Self = serde_saphyr::from_str(yaml)
            .map_err(|error| ControlError::Yaml { file: file.to_owned(), reason: error.to_string() })?;
        control.check()?;
        Ok(control)
    }

    fn check(&self) -> Result<(), ControlError> {
        let wrong = |reason: String| Err(ControlError::Invalid { id: self.id.clone(), reason });
        let id_fits = self.id.split_once('-').is_some_and(|(area, number)| {
            area.len() == 2
                && area.bytes().all(|byte| byte.is_ascii_uppercase())
                && number.len() == 2
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if !id_fits {
            return wrong("an id is two capitals, a hyphen and two digits".to_owned());
        }
        if self.population.key.is_empty() || self.exceptions.key.is_empty() {
            return wrong("population and exceptions need key columns".to_owned());
        }
        if self.sources.iter().any(|group| group.types().is_empty()) {
            return wrong("a group of sources is empty".to_owned());
        }
        let words = [&self.title, &self.checks, self.note.as_ref().unwrap_or(&self.title)];
        if words.iter().any(|text| ["compliant", "certified"].iter().any(|word| text.to_lowercase().contains(word))) {
            return wrong("a test reports what it found and never that anything is in conformity".to_owned());
        }
        for name in self.parameters.keys() {
            if RESERVED.contains(&name.as_str()) {
                return wrong(format!("`{name}` is reserved"));
            }
            if !self.population.sql.contains(&format!(":{name}")) && !self.exceptions.sql.contains(&format!(":{name}"))
            {
                return wrong(format!("parameter `{name}` is not used"));
            }
        }
        if !self.population.sql.contains(":P0") || !self.population.sql.contains(":P1") {
            return wrong("the population does not depend on the period".to_owned());
        }
        self.queries(&BTreeMap::new()).map(|_| ())
    }

    /// The parameters in force: the defaults, and what `set` overrides.
    ///
    /// # Errors
    /// [`ControlError::Parameter`] if `set` names one that the test does not have, or of another kind.
    pub fn values(
        &self,
        set: &BTreeMap<String, ParameterValue>,
    ) -> Result<BTreeMap<String, ParameterValue>, ControlError> {
        let mut values: BTreeMap<_, _> =
            self.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.default.clone())).collect();
        for (name, value) in set {
            match values.get_mut(name) {
                Some(slot) if slot.same_kind(value) => *slot = value.clone(),
                _ => {
                    let known = self.parameters.keys().cloned().collect::<Vec<_>>().join(", ");
                    return Err(ControlError::Parameter { id: self.id.clone(), name: name.clone(), known });
                }
            }
        }
        Ok(values)
    }

    /// The queries, with the parameters in force written in.
    ///
    /// # Errors
    /// [`ControlError`] if a parameter has no such value or a query uses a name that is not declared.
    pub fn queries(&self, set: &BTreeMap<String, ParameterValue>) -> Result<Queries, ControlError> {
        let values = self.values(set)?;
        let fill = |sql: &str| {
            substitute(sql, &values).map_err(|reason| ControlError::Invalid { id: self.id.clone(), reason })
        };
        Ok(Queries { population: fill(&self.population.sql)?, exceptions: fill(&self.exceptions.sql)? })
    }

    /// SHA-256 (hexadecimal) over everything that decides a result: queries as written, keys, sources and parameters'
    /// defaults; not the wording.
    #[must_use]
    pub fn digest(&self) -> String {
        let decides = serde_json::json!([
            self.id,
            self.sources,
            self.parameters,
            self.population.key,
            self.population.time,
            self.population.sql.trim(),
            self.exceptions.key,
            self.exceptions.sql.trim(),
        ]);
        hex::encode(Sha256::digest(decides.to_string()))
    }
}

/// Replaces `:name` by the parameter's literal, outside of quotes; reserved names stay.
fn substitute(sql: &str, values: &BTreeMap<String, ParameterValue>) -> Result<String, String> {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql.trim();
    let mut quoted = false;
    while let Some(at) = rest.find(['\'', ':']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (mark, after) = from.split_at(1);
        rest = after;
        if mark == "'" {
            quoted = !quoted;
            out.push_str(mark);
            continue;
        }
        // A cast, `::`.
        if let Some(after) = rest.strip_prefix(':')
            && !quoted
        {
            out.push_str("::");
            rest = after;
            continue;
        }
        let end =
            rest.find(|character: char| !character.is_ascii_alphanumeric() && character != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if quoted || name.is_empty() || RESERVED.contains(&name) {
            out.push_str(mark);
            continue;
        }
        let value = values.get(name).ok_or_else(|| format!("a query uses `:{name}`, which is no parameter"))?;
        out.push_str(&value.literal()?);
        rest = after;
    }
    out.push_str(rest);
    if quoted {
        return Err("a query has an unclosed quote".to_owned());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
id: XX-01
title: t
checks: c
strength: operating
frequency: per event
sources: [github.webhook, [vault.audit, aws.cloudtrail]]
parameters:
  ttl: { means: m, default: { span: 1h } }
  kinds: { means: m, default: { list: [a, \"it's\"] } }
population: { row: r, scope: s, key: [id], time: at, sql: \"SELECT * FROM token WHERE at >= :P0 AND at < :P1\" }
exceptions: { row: r, key: [id], sql: \"SELECT ':ttl', x::varchar FROM token WHERE kind IN :kinds AND e > :ttl AND at<:P1\" }
";

    #[test]
    fn parameters_are_written_in_outside_quotes_and_the_period_stays() {
        let control = Control::read("XX-01.yml", YAML).unwrap();
        assert_eq!(control.sources[1].types(), [SourceType::VaultAudit, SourceType::AwsCloudtrail]);
        let queries = control.queries(&BTreeMap::new()).unwrap();
        let expected = "SELECT ':ttl', x::varchar FROM token WHERE kind IN ('a', 'it''s') AND e > INTERVAL '3600 seconds' AND at<:P1";
        assert_eq!(queries.exceptions, expected);
        let set = BTreeMap::from([("ttl".to_owned(), ParameterValue::Span("2h".to_owned()))]);
        assert!(control.queries(&set).unwrap().exceptions.contains("'7200 seconds'"));
        assert_eq!(control.digest().len(), 64);
    }

    #[test]
    fn wrong_ones_are_refused_with_a_reason() {
        for (from, to, reason) in [
            ("id: XX-01", "id: XX-1", "two digits"),
            ("title: t", "title: we are compliant", "never"),
            ("strength: operating", "strength: strong", "strength"),
            ("frequency: per event", "frequency: per event\nfrequencies: x", "frequencies"),
            ("at >= :P0 AND at < :P1", "true", "period"),
            ("e > :ttl", "e > 1", "not used"),
            ("e > :ttl", "e > :ttl AND :other", ":other"),
            ("{ span: 1h }", "{ span: soon }", "length of time"),
            ("e > :ttl", "e > :ttl AND a = '", "unclosed"),
            ("vault.audit,", "vault.nothing,", "XX-01.yml"),
            ("list: [a, \"it's\"]", "list: []", "at least one"),
        ] {
            let yaml = YAML.replace(from, to);
            assert_ne!(yaml, YAML, "{from}");
            // The unused-parameter case still has it inside quotes; take it out there too.
            let yaml = if reason == "not used" { yaml.replace("':ttl', ", "") } else { yaml };
            let error = Control::read("XX-01.yml", &yaml).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn overrides_must_name_a_parameter_of_the_same_kind() {
        let control = Control::read("XX-01.yml", YAML).unwrap();
        for (name, value) in [("tll", ParameterValue::Span("1h".into())), ("ttl", ParameterValue::Number(1))] {
            let error = control.values(&BTreeMap::from([(name.to_owned(), value)])).unwrap_err().to_string();
            assert!(error.contains("kinds, ttl"), "{error}");
        }
    }
}

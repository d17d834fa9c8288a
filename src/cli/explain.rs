//! `explain`: which clause of a rule an event satisfies, and which not.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use pipeproof_engine::clock::{Clock, SystemClock};
use pipeproof_engine::event::Event;
use pipeproof_engine::plan::Plan;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, RECORD_BYTES_MAX, Record};
use pipeproof_engine::rule::Rule;
use pipeproof_ingest::decode::decode;
use serde_json::{Value, json};

use super::arguments::{ExplainOptions, Format};
use super::eval::{recognise, source_type};
use super::rules::read;
use super::{Failure, show};
use crate::rules as rule_sets;

/// How deep members of members are explained.
const DEPTH_MAX: usize = 16;

pub(super) fn explain(options: &ExplainOptions, format: Option<Format>) -> Result<(), Failure> {
    let mut paths = options.rules.clone();
    let file = Path::new(&options.rule).exists().then(|| options.rule.clone());
    paths.extend(file.iter().map(Into::into));
    let rules = rule_sets::compile(read(&paths)?).map_err(|error| Failure::Usage(crate::chain(&error)))?;
    let wanted = |rule: &&Rule| {
        let meta = rule.meta();
        let stands_in = || rules.origins.get(&meta.id).map(|origin| origin.file.as_str());
        match &file {
            // Rules that only feed others of the file are explained as their members.
            Some(file) => meta.emits && stands_in().is_some_and(|path| Path::new(path).starts_with(file)),
            None => meta.id == options.rule || meta.name.as_deref() == Some(&*options.rule),
        }
    };
    let plan = &rules.plan;
    let numbers: Vec<usize> =
        plan.rules().iter().enumerate().filter(|(_, rule)| wanted(rule)).map(|(number, _)| number).collect();
    if numbers.is_empty() {
        return Err(Failure::Usage(format!("there is no rule with id, name or file `{}`", options.rule)));
    }
    let mut matched = false;
    for event in &read_event(options)? {
        for number in &numbers {
            let told = Told::of(plan, *number, event, 0);
            matched |= told.matched;
            if show::format(format) == Format::Human {
                told.print(0)?;
            } else {
                let mut value = told.json();
                if let Some(value) = value.as_object_mut() {
                    value.insert("event".to_owned(), event.id.to_string().into());
                }
                show::object(&value, format)?;
            }
        }
    }
    if matched { Ok(()) } else { Err(Failure::Found) }
}

/// What is said about one rule.
struct Told {
    title: String,
    kind: &'static str,
    /// A correlation: the event matches one of the rules it looks at.
    matched: bool,
    explanation: Value,
    clauses: Vec<(bool, String)>,
    members: Vec<Told>,
}

impl Told {
    fn of(plan: &Plan, number: usize, event: &Event, depth: usize) -> Self {
        let explanation = plan.explain(number, event);
        let rule = plan.rules().get(number);
        let numbers = if depth < DEPTH_MAX { plan.members(number) } else { &[] };
        let members: Vec<Self> = numbers.iter().map(|member| Self::of(plan, *member, event, depth + 1)).collect();
        Self {
            title: rule.map(|rule| rule.meta().title.clone()).unwrap_or_default(),
            kind: match rule {
                Some(Rule::Correlation(_)) => "correlation",
                Some(Rule::Sql(_)) => "sql",
                Some(Rule::Detection(_)) | None => "detection",
            },
            matched: explanation.matched || members.iter().any(|member| member.matched),
            clauses: explanation.clauses.iter().map(|clause| (clause.held, clause.text.clone())).collect(),
            explanation: serde_json::to_value(&explanation).unwrap_or_default(),
            members,
        }
    }

    fn verdict(&self) -> String {
        match (self.kind, self.matched) {
            ("sql", _) => "asks the lake on a schedule, no single event decides it: see `backtest`".to_owned(),
            ("correlation", _) => {
                let matched = self.members.iter().filter(|member| member.matched).count();
                format!("the event matches {matched} of the {} rules it looks at", self.members.len())
            }
            (_, true) => "matches".to_owned(),
            (_, false) => "does not match".to_owned(),
        }
    }

    fn print(&self, depth: usize) -> Result<(), Failure> {
        let indent = "  ".repeat(depth);
        show::plain(&format!("{indent}{}: {}", self.title, self.verdict()))?;
        for (held, text) in &self.clauses {
            show::plain(&format!("{indent}  {} {text}", if *held { "yes" } else { "no " }))?;
        }
        self.members.iter().try_for_each(|member| member.print(depth + 1))
    }

    fn json(&self) -> Value {
        let mut value =
            json!({ "rule": self.title, "kind": self.kind, "matched": self.matched, "verdict": self.verdict() });
        if let Some(object) = value.as_object_mut() {
            match self.kind {
                "correlation" => {
                    object.insert("members".to_owned(), self.members.iter().map(Self::json).collect());
                }
                "sql" => {}
                _ => {
                    object.insert("explanation".to_owned(), self.explanation.clone());
                }
            }
        }
        value
    }
}

fn read_event(options: &ExplainOptions) -> Result<Vec<Event>, Failure> {
    let mut text = Vec::new();
    let limit = RECORD_BYTES_MAX as u64;
    let path = options.event.display().to_string();
    let read = if path == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut text)
    } else {
        File::open(&options.event).and_then(|file| file.take(limit).read_to_end(&mut text))
    };
    read.map_err(|source| Failure::Io { doing: format!("read {path}"), source })?;
    let body = Bytes::copy_from_slice(text.trim_ascii());
    let source_type = match options.source.as_deref() {
        Some(name) => source_type(name)?,
        None => recognise(&body),
    };
    let record = Record {
        envelope: Envelope {
            source: source_type.name().to_owned(),
            source_type,
            received: SystemClock.now(),
            auth: Authenticity::Bearer,
            key_id: None,
            item: "id:1".to_owned(),
            mode: CollectionMode::Live,
            attributes: std::collections::BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body,
    };
    decode(Position::default(), &record)
        .map_err(|error| Failure::Usage(format!("the event cannot be decoded: {error}")))
}

//! What a plugin says of itself: parsed, checked, and refused with the reason (`sdk/wit/DESCRIPTOR.md`).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::read_model::{Column, ReadModel, Reference};

/// A checked descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The projection's name.
    pub name: String,
    /// The author's version.
    pub version: String,
    /// What built the plugin.
    pub sdk: String,
    /// The event types it wants; `None` means all of them.
    pub event_types: Option<Vec<String>>,
    /// What a deploy of changed bytes does.
    pub on_change: OnChange,
    /// The read models; their order gives the index used in frames.
    pub read_models: Vec<ReadModel>,
}

/// What a deploy of changed bytes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// Fill a new generation from the first event.
    #[default]
    Rebuild,
    /// Go on from the checkpoint with the new code.
    Continue,
}

/// A descriptor that breaks a rule; the text names the place and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plugin's descriptor is refused: {0}")]
pub struct Refused(String);

/// Names that the query grammar reserves (DESIGN: a column of that name could not be filtered on).
const RESERVED: [&str; 16] = [
    "select",
    "order",
    "limit",
    "offset",
    "and",
    "or",
    "not",
    "cursor",
    "min_position",
    "max_lag",
    "wait",
    "as_of",
    "live",
    "last_event_id",
    "on_conflict",
    "columns",
];

const MAX_READ_MODELS: usize = 32;
const MAX_COLUMNS: usize = 200;
const MAX_INDEXES: usize = 16;
const MAX_REFERENCES: usize = 16;
/// PostgreSQL's limit on index columns.
const MAX_INDEX_COLUMNS: usize = 32;
const MAX_NAME: usize = 63;
const MAX_EVENT_TYPES: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    descriptor: u32,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    sdk: String,
    event_types: Option<Vec<String>>,
    #[serde(default)]
    on_change: OnChange,
    read_models: Vec<RawReadModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReadModel {
    name: String,
    comment: Option<String>,
    #[serde(default)]
    per_stream: bool,
    columns: Vec<RawColumn>,
    key: Vec<String>,
    #[serde(default)]
    indexes: Vec<RawIndex>,
    #[serde(default)]
    references: Vec<RawReference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawColumn {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    nullable: bool,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIndex {
    columns: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReference {
    name: Option<String>,
    columns: Vec<String>,
    read_model: String,
    target_columns: Option<Vec<String>>,
}

impl Descriptor {
    /// Parses and checks the JSON that `describe` returned.
    pub fn parse(json: &str) -> Result<Self, Refused> {
        // The version is read first: a later format may have members that this engine does not know.
        #[derive(Deserialize)]
        struct Version {
            descriptor: u32,
        }
        let version: Version = serde_json::from_str(json).map_err(|e| Refused(e.to_string()))?;
        if version.descriptor != 1 {
            return Err(Refused(format!(
                "it has format version {}, this engine reads version 1; use an engine or an SDK of the other's age",
                version.descriptor
            )));
        }
        let raw: Raw = serde_json::from_str(json).map_err(|e| Refused(e.to_string()))?;
        raw.check().map_err(Refused)
    }
}

impl Raw {
    fn check(self) -> Result<Descriptor, String> {
        debug_assert_eq!(self.descriptor, 1);
        check_name("the projection's name", &self.name, true)?;
        for (what, text) in [("version", &self.version), ("sdk", &self.sdk)] {
            if text.len() > 200 || text.contains('\0') {
                return Err(format!(
                    "\"{what}\" is longer than 200 bytes or contains a NUL"
                ));
            }
        }
        if let Some(types) = &self.event_types {
            check_event_types(types)?;
        }
        if self.read_models.is_empty() || self.read_models.len() > MAX_READ_MODELS {
            return Err(format!(
                "it declares {} read models; 1 to {MAX_READ_MODELS} are possible",
                self.read_models.len()
            ));
        }
        let mut names = HashSet::new();
        let mut read_models = Vec::new();
        for model in self.read_models {
            if !names.insert(model.name.clone()) {
                return Err(format!("read model \"{}\" is declared twice", model.name));
            }
            let name = model.name.clone();
            let checked = model
                .check()
                .map_err(|why| format!("read model \"{name}\": {why}"))?;
            read_models.push(checked);
        }
        check_own_references(&read_models)?;
        Ok(Descriptor {
            name: self.name,
            version: self.version,
            sdk: self.sdk,
            event_types: self.event_types,
            on_change: self.on_change,
            read_models,
        })
    }
}

impl RawReadModel {
    fn check(self) -> Result<ReadModel, String> {
        check_name("its name", &self.name, false)?;
        check_comment(self.comment.as_deref())?;
        if self.columns.is_empty() || self.columns.len() > MAX_COLUMNS {
            return Err(format!(
                "it has {} columns; 1 to {MAX_COLUMNS} are possible",
                self.columns.len()
            ));
        }
        let mut names = HashSet::new();
        let mut columns = Vec::new();
        for column in self.columns {
            if !names.insert(column.name.clone()) {
                return Err(format!("column \"{}\" is declared twice", column.name));
            }
            columns.push(column.check()?);
        }
        let key = places("key", &self.key, &columns)?;
        for &index in &key {
            let column: &Column = &columns[index];
            if column.nullable {
                return Err(format!("key column \"{}\" is nullable", column.name));
            }
            if !column.kind.may_be_key() {
                return Err(format!(
                    "key column \"{}\" has type {}; a key may have bool, the integers, text, uuid, date, timestamptz and bytea",
                    column.name, column.kind
                ));
            }
        }
        if self.indexes.len() > MAX_INDEXES {
            return Err(format!(
                "it declares {} indexes; at most {MAX_INDEXES} are possible",
                self.indexes.len()
            ));
        }
        let mut indexes = Vec::new();
        for index in &self.indexes {
            let index = places("index", &index.columns, &columns)?;
            if let Some(&bad) = index.iter().find(|&&i| !columns[i].kind.may_be_indexed()) {
                return Err(format!(
                    "column \"{}\" of type {} cannot be indexed",
                    columns[bad].name, columns[bad].kind
                ));
            }
            indexes.push(index);
        }
        let references = references(&self.name, self.references, &columns)?;
        Ok(ReadModel {
            name: self.name,
            comment: self.comment,
            per_stream: self.per_stream,
            columns,
            key,
            indexes,
            references,
        })
    }
}

impl RawColumn {
    fn check(self) -> Result<Column, String> {
        check_name("a column's name", &self.name, false)?;
        if RESERVED.contains(&self.name.as_str()) {
            return Err(format!(
                "column \"{}\" has a name that queries reserve; call it otherwise",
                self.name
            ));
        }
        check_comment(self.comment.as_deref())?;
        let kind = self
            .kind
            .parse()
            .map_err(|why| format!("column \"{}\": {why}", self.name))?;
        Ok(Column {
            name: self.name,
            kind,
            nullable: self.nullable,
            comment: self.comment,
        })
    }
}

/// What can be said of references without their targets.
fn references(
    model: &str,
    declared: Vec<RawReference>,
    columns: &[Column],
) -> Result<Vec<Reference>, String> {
    if declared.len() > MAX_REFERENCES {
        return Err(format!(
            "it declares {} references; at most {MAX_REFERENCES} are possible",
            declared.len()
        ));
    }
    let mut references: Vec<Reference> = Vec::new();
    for reference in declared {
        let target = reference.read_model;
        check_name("the read model that a reference names", &target, false)?;
        if let Some(name) = &reference.name {
            check_name("a reference's name", name, false)?;
        }
        let what = format!("reference to \"{target}\"");
        let places = places(&what, &reference.columns, columns)?;
        if let Some(&bad) = places.iter().find(|&&i| !columns[i].kind.may_be_key()) {
            return Err(format!(
                "its {what} has column \"{}\" of type {}, which no key can have",
                columns[bad].name, columns[bad].kind
            ));
        }
        if let Some(targets) = &reference.target_columns {
            let distinct: HashSet<&String> = targets.iter().collect();
            if targets.len() != places.len() || distinct.len() != targets.len() {
                return Err(format!(
                    "its {what} needs as many \"target_columns\" as \"columns\", each of them once"
                ));
            }
        }
        let name =
            (reference.name).unwrap_or_else(|| Reference::default_name(model, &reference.columns));
        if references.iter().any(|other| other.name == name) {
            return Err(format!(
                "two of its references are called \"{name}\"; give one of them a \"name\" of its own"
            ));
        }
        references.push(Reference {
            name,
            columns: places,
            target,
            target_columns: reference.target_columns,
        });
    }
    Ok(references)
}

/// Those that stay within the projection must fit; what other projections have is looked at when it is deployed.
fn check_own_references(models: &[ReadModel]) -> Result<(), String> {
    for model in models {
        for reference in &model.references {
            let target = models.iter().find(|other| other.name == reference.target);
            if let Some(target) = target {
                reference.resolve(model, target).map_err(|why| {
                    format!(
                        "read model \"{}\": its reference \"{}\" does not fit: {why}",
                        model.name, reference.name
                    )
                })?;
            }
        }
    }
    Ok(())
}

/// Looks the named columns up; they must exist, once each.
fn places(what: &str, names: &[String], columns: &[Column]) -> Result<Vec<usize>, String> {
    if names.is_empty() || names.len() > MAX_INDEX_COLUMNS {
        return Err(format!(
            "its {what} has {} columns; 1 to {MAX_INDEX_COLUMNS} are possible",
            names.len()
        ));
    }
    let mut places = Vec::new();
    for name in names {
        let place = columns
            .iter()
            .position(|column| &column.name == name)
            .ok_or_else(|| format!("its {what} names \"{name}\", which is no column of it"))?;
        if places.contains(&place) {
            return Err(format!("its {what} names column \"{name}\" twice"));
        }
        places.push(place);
    }
    Ok(places)
}

fn check_name(what: &str, name: &str, dashes: bool) -> Result<(), String> {
    let shown: String = name.chars().take(80).collect();
    let body =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || dashes && c == '-';
    if name.len() > MAX_NAME {
        return Err(format!(
            "{what}, {shown:?}, has {} characters; at most {MAX_NAME} are possible",
            name.len()
        ));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(body) {
        let more = if dashes {
            "underscores and dashes"
        } else {
            "underscores"
        };
        return Err(format!(
            "{what}, {shown:?}, must begin with a lower-case letter and consist of lower-case letters, digits, {more}"
        ));
    }
    Ok(())
}

fn check_comment(comment: Option<&str>) -> Result<(), String> {
    match comment {
        Some(text) if text.len() > 10_000 || text.contains('\0') => {
            Err("a comment is longer than 10,000 bytes or contains a NUL".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_event_types(types: &[String]) -> Result<(), String> {
    if types.is_empty() || types.len() > MAX_EVENT_TYPES {
        return Err(format!(
            "\"event_types\" has {} entries; 1 to {MAX_EVENT_TYPES} are possible (leave it out for all types)",
            types.len()
        ));
    }
    let mut seen = HashSet::new();
    for kind in types {
        if kind.is_empty() || kind.len() > 256 || kind.contains('\0') {
            return Err(format!(
                "event type {kind:?} is empty, too long or contains a NUL"
            ));
        }
        if !seen.insert(kind) {
            return Err(format!("event type {kind:?} is listed twice"));
        }
    }
    Ok(())
}

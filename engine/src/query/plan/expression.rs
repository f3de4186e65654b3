//! Values of a row: its columns, and what a JSON path finds in them.

use std::fmt;

use super::cast;
use crate::query::parse::{Key, Name, Path, Step};
use crate::query::{Limits, Place, Refusal, nearest};
use crate::read_model::{ColumnType, ReadModel, Scalar};

/// A column that a query may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'m> {
    /// Its name.
    pub name: &'m str,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression<'m> {
    /// The column that it comes from.
    pub field: Field<'m>,
    /// The way into the column's JSON; empty: the column itself.
    pub steps: Vec<Step>,
    /// The type that the value is given.
    pub cast: Option<ColumnType>,
}

impl<'m> Expression<'m> {
    /// A column itself.
    pub fn of(field: Field<'m>) -> Self {
        Self {
            field,
            steps: Vec::new(),
            cast: None,
        }
    }

    /// The column, if the value is nothing else.
    pub fn column(&self) -> Option<Field<'m>> {
        (self.steps.is_empty() && self.cast.is_none()).then_some(self.field)
    }

    /// The value's type.
    pub fn kind(&self) -> ColumnType {
        self.cast.unwrap_or_else(|| self.found())
    }

    /// The type before the cast.
    fn found(&self) -> ColumnType {
        match self.steps.last() {
            None => self.field.kind,
            Some(step) if step.as_text => TEXT,
            Some(_) if self.field.kind == JSON => JSON,
            Some(_) => ColumnType::Scalar(Scalar::Jsonb),
        }
    }

    /// Whether the value may be NULL. A cast gives NULL for NULL alone, and the `null` of JSON no other type.
    pub fn nullable(&self) -> bool {
        self.field.nullable || self.column().is_none()
    }

    /// The same value as another type.
    pub(super) fn cast_to(mut self, name: Option<&Name>) -> Result<Self, Refusal> {
        let Some(name) = name else { return Ok(self) };
        let to = cast::find(name)?;
        let from = self.found();
        if !cast::is_possible(from, to) {
            return Err(Refusal::new(
                "invalid_cast",
                format!("{self} has type {from}, which cannot be cast to {to}"),
                cast::targets(from),
            )
            .at(&name.place));
        }
        self.cast = Some(to);
        Ok(self)
    }
}

impl fmt::Display for Expression<'_> {
    /// The value as the grammar would say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field.name)?;
        for step in &self.steps {
            step.fmt(f)?;
        }
        match self.cast {
            Some(kind) => write!(f, "::{kind}"),
            None => Ok(()),
        }
    }
}

pub(super) const TEXT: ColumnType = ColumnType::Scalar(Scalar::Text);
pub(super) const JSON: ColumnType = ColumnType::Scalar(Scalar::Json);

/// Columns that a hint lists.
const LISTED: usize = 30;

const SYSTEM: [(&str, Scalar); 3] = [
    ("_position", Scalar::Int8),
    ("_revision", Scalar::Int8),
    ("_updated_at", Scalar::Timestamptz),
];

/// The read model's own columns.
pub(super) fn own(model: &ReadModel) -> impl Iterator<Item = Field<'_>> {
    model.columns.iter().map(|column| Field {
        name: &column.name,
        kind: column.kind,
        nullable: column.nullable,
    })
}

/// The columns that a query may name: its own, and those that every row carries.
pub(in crate::query) fn fields(model: &ReadModel) -> impl Iterator<Item = Field<'_>> {
    own(model).chain(SYSTEM.map(|(name, kind)| Field {
        name,
        kind: ColumnType::Scalar(kind),
        nullable: false,
    }))
}

/// The column of this name.
pub(in crate::query) fn find<'m>(model: &'m ReadModel, name: &str) -> Option<Field<'m>> {
    fields(model).find(|field| field.name == name)
}

/// The refusal of a name that is no column, and none of the `others` that could be meant.
pub(super) fn unknown(model: &ReadModel, name: &str, place: &Place, others: &[&str]) -> Refusal {
    let known = fields(model).map(|field| field.name);
    let hint = match nearest(name, known.chain(others.iter().copied())) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            let columns: Vec<&str> = own(model).map(|field| field.name).take(LISTED).collect();
            let more = match model.columns.len() > LISTED {
                true => ", and more",
                false => "",
            };
            format!("its columns are {}{more}", columns.join(", "))
        }
    };
    let shown: String = name.chars().take(80).collect();
    let message = format!("read model \"{}\" has no column \"{shown}\"", model.name);
    Refusal::new("unknown_column", message, hint).at(place)
}

pub(super) fn field<'m>(model: &'m ReadModel, name: &Name) -> Result<Field<'m>, Refusal> {
    find(model, &name.text).ok_or_else(|| unknown(model, &name.text, &name.place, &[]))
}

/// A column or a place in its JSON, looked up.
pub(super) fn expression<'m>(
    model: &'m ReadModel,
    path: &Path,
    limits: &Limits,
) -> Result<Expression<'m>, Refusal> {
    let field = field(model, &path.name)?;
    let refuse = |message: String, hint: &str| {
        Err(Refusal::new("invalid_path", message, hint).at(&path.name.place))
    };
    if path.steps.len() > limits.depth {
        let limit = limits.depth;
        return refuse(
            format!("the path has more than {limit} steps"),
            "ask for a value further up, and take the rest of the way in the answer",
        );
    }
    let has_members = matches!(
        field.kind,
        ColumnType::Array(_) | ColumnType::Scalar(Scalar::Json | Scalar::Jsonb)
    );
    if !path.steps.is_empty() && !has_members {
        return refuse(
            format!(
                "column \"{}\" has type {}, in which a path finds nothing",
                field.name, field.kind
            ),
            "paths lead into columns of type json or jsonb, and into arrays",
        );
    }
    let last = path.steps.len().saturating_sub(1);
    if path.steps.iter().take(last).any(|step| step.as_text) {
        return refuse(
            "only the last step of a path can give a text".to_owned(),
            "write data->a->>b: -> between the keys, ->> before the last one",
        );
    }
    Ok(Expression {
        field,
        steps: path.steps.clone(),
        cast: None,
    })
}

/// What a value is called that was given no name: its column, or the last key on the way.
pub(super) fn default_name(expression: &Expression<'_>) -> String {
    let last = expression
        .steps
        .iter()
        .rev()
        .find_map(|step| match &step.key {
            Key::Member(key) => Some(key.as_str()),
            Key::Element(_) => None,
        });
    last.unwrap_or(expression.field.name).to_owned()
}

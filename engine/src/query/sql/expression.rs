//! Values of a row, and of groups of rows, as SQL.

use super::{Builder, TEXT};
use crate::query::parse::Key;
use crate::query::plan::{Aggregate, Expression, Source};
use crate::read_model::{ColumnType, Scalar, quote};

const INT4: u32 = 23;

impl Builder {
    /// A value of the row that the table alias stands for. Keys of a path are parameters.
    pub(super) fn expression(&mut self, alias: &str, expression: &Expression<'_>) -> String {
        let field = expression.field;
        let mut text = format!("{alias}.{}", quote(field.name));
        if !expression.steps.is_empty() {
            if matches!(field.kind, ColumnType::Array(_)) {
                text = format!("to_jsonb({text})");
            }
            for step in &expression.steps {
                let key = match &step.key {
                    Key::Member(key) => self.bind(field.name, TEXT, key.clone()),
                    Key::Element(index) => self.bind(field.name, INT4, index.to_string()),
                };
                let arrow = if step.as_text { "->>" } else { "->" };
                text = format!("{text} {arrow} {key}");
            }
            text = format!("({text})");
        }
        match expression.cast {
            Some(kind) => cast(&text, kind),
            None => text,
        }
    }

    /// What a member of an answer's rows shows.
    pub(super) fn source(&mut self, alias: &str, source: &Source<'_>) -> String {
        match source {
            Source::Value(value) => self.expression(alias, value),
            Source::Aggregate(aggregate) => self.aggregate(alias, aggregate),
            Source::Embed(embedded) => self.embed(alias, embedded),
            Source::Spread(embedded, index) => self.spread(alias, embedded, *index),
        }
    }

    fn aggregate(&mut self, alias: &str, aggregate: &Aggregate<'_>) -> String {
        let argument = match &aggregate.argument {
            Some(value) => self.expression(alias, value),
            None => "*".to_owned(),
        };
        let text = format!("{}({argument})", aggregate.function.name());
        match aggregate.cast {
            Some(kind) => cast(&text, kind),
            None => text,
        }
    }

    /// A row as JSON text, as `row_to_json` writes it: members are given by name and SQL value. Names may be a reader's,
    /// so they are a parameter too.
    pub(super) fn object<'n>(
        &mut self,
        members: impl IntoIterator<Item = (&'n str, String)>,
    ) -> String {
        let (mut template, mut values) = (String::from("{"), Vec::new());
        for (name, value) in members {
            if !values.is_empty() {
                template.push(',');
            }
            // A JSON string, in which % would be a directive of format().
            template.push_str(&serde_json::Value::from(name).to_string().replace('%', "%%"));
            template.push_str(":%s");
            values.push(json(&value));
        }
        template.push('}');
        let template = self.bind("select", TEXT, template);
        format!(
            "format({template}, variadic array[{}]::text[])",
            values.join(", ")
        )
    }
}

/// A value as JSON text.
pub(super) fn json(value: &str) -> String {
    format!("coalesce(to_json({value})::text, 'null')")
}

fn cast(text: &str, kind: ColumnType) -> String {
    // The name is one of the contract's types.
    format!("({text})::{}", kind.sql())
}

/// The oid of an array of the type, if there is one.
pub(super) fn array_of(kind: ColumnType) -> Option<u32> {
    match kind {
        ColumnType::Scalar(scalar) => Some(Scalar::array_oid(scalar)),
        ColumnType::Array(_) => None,
    }
}

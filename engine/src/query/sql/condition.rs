//! Conditions as SQL.

use super::Builder;
use crate::query::parse::{Comparator, Keyword};
use crate::query::plan::{Condition, Field};
use crate::read_model::{ColumnType, quote};

impl Builder {
    pub(super) fn all(&mut self, conditions: &[Condition<'_>]) -> String {
        self.joined(conditions, " and ", "true")
    }

    fn joined(&mut self, conditions: &[Condition<'_>], word: &str, empty: &str) -> String {
        let parts: Vec<String> = conditions.iter().map(|c| self.condition(c)).collect();
        match parts.is_empty() {
            true => empty.to_owned(),
            false => parts.join(word),
        }
    }

    fn condition(&mut self, condition: &Condition<'_>) -> String {
        match condition {
            Condition::All(conditions) => format!("({})", self.all(conditions)),
            Condition::Any(conditions) => format!("({})", self.joined(conditions, " or ", "false")),
            Condition::Not(condition) => format!("(not {})", self.condition(condition)),
            Condition::Compare(field, comparator, text) => {
                let value = self.bind(*field, field.kind.oid(), text.clone());
                format!("({} {} {value})", column(*field), operator(*comparator))
            }
            Condition::In(field, values) => self.one_of(*field, values),
            Condition::Is(field, keyword) => {
                format!("({} is {})", column(*field), word(*keyword))
            }
        }
    }

    fn one_of(&mut self, field: Field<'_>, values: &[String]) -> String {
        match field.kind {
            _ if values.is_empty() => "false".to_owned(),
            ColumnType::Scalar(scalar) => {
                let list = self.bind(field, scalar.array_oid(), array(values));
                format!("({} = any({list}))", column(field))
            }
            // An array of arrays would be one array of more dimensions.
            ColumnType::Array(_) => {
                let mut parts = Vec::new();
                for value in values {
                    let value = self.bind(field, field.kind.oid(), value.clone());
                    parts.push(format!("{} = {value}", column(field)));
                }
                format!("({})", parts.join(" or "))
            }
        }
    }
}

pub(super) fn column(field: Field<'_>) -> String {
    format!("t.{}", quote(field.name))
}

/// An array literal: every element quoted.
fn array(values: &[String]) -> String {
    let quoted: Vec<String> = values
        .iter()
        .map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", quoted.join(","))
}

fn operator(comparator: Comparator) -> &'static str {
    match comparator {
        Comparator::Eq => "=",
        Comparator::Neq => "<>",
        Comparator::Gt => ">",
        Comparator::Gte => ">=",
        Comparator::Lt => "<",
        Comparator::Lte => "<=",
    }
}

fn word(keyword: Keyword) -> &'static str {
    match keyword {
        Keyword::Null => "null",
        Keyword::NotNull => "not null",
        Keyword::True => "true",
        Keyword::False => "false",
        Keyword::Unknown => "unknown",
    }
}

//! Conditions as SQL.

use super::expression::array_of;
use super::{Builder, TEXT};
use crate::query::parse::{Comparator, Keyword, Quantifier, Search};
use crate::query::plan::{Condition, Expression};
use crate::query::value::array;

impl Builder {
    /// Conditions on the row that the table alias stands for, all of which must hold.
    ///
    /// PostgreSQL asks them in the order of what they cost. Behind a rule, what could fail therefore stands in a CASE: an error
    /// would tell of a row that the reader may not see.
    pub fn all(&mut self, alias: &str, conditions: &[Condition<'_>]) -> String {
        let Some((rule @ Condition::Seen(_), rest)) = conditions.split_first() else {
            return self.joined(alias, conditions, " and ", "true");
        };
        let (silent, others): (Vec<&_>, Vec<&_>) = rest.iter().partition(|one| one.is_silent());
        let mut all = self.condition(alias, rule);
        for condition in silent {
            all.push_str(" and ");
            all.push_str(&self.condition(alias, condition));
        }
        if !others.is_empty() {
            let rule = self.condition(alias, rule);
            let others = self.joined(alias, others, " and ", "true");
            all.push_str(&format!(
                " and case when {rule} then ({others}) else false end"
            ));
        }
        all
    }

    fn joined<'c, 'm: 'c>(
        &mut self,
        alias: &str,
        conditions: impl IntoIterator<Item = &'c Condition<'m>>,
        word: &str,
        empty: &str,
    ) -> String {
        let parts: Vec<String> = conditions
            .into_iter()
            .map(|condition| self.condition(alias, condition))
            .collect();
        match parts.is_empty() {
            true => empty.to_owned(),
            false => parts.join(word),
        }
    }

    /// A condition on the row that the table alias stands for.
    pub fn condition(&mut self, alias: &str, condition: &Condition<'_>) -> String {
        match condition {
            Condition::All(conditions) => format!("({})", self.all(alias, conditions)),
            Condition::Any(conditions) => {
                format!("({})", self.joined(alias, conditions, " or ", "false"))
            }
            Condition::Not(condition) => format!("(not {})", self.condition(alias, condition)),
            Condition::Compare(left, comparator, text) => {
                let value = self.expression(alias, left);
                let other = self.like(left, text);
                format!("({value} {} {other})", operator(*comparator))
            }
            Condition::Each(left, comparator, quantifier, elements) => {
                let value = self.expression(alias, left);
                let oid = array_of(left.kind()).unwrap_or(left.kind().oid());
                let list = self.bind(left.field.name, oid, elements.clone());
                let word = match quantifier {
                    Quantifier::Any => "any",
                    Quantifier::All => "all",
                };
                format!("({value} {} {word}({list}))", operator(*comparator))
            }
            Condition::In(left, values) => self.one_of(alias, left, values),
            Condition::Is(left, keyword) => {
                format!("({} is {})", self.expression(alias, left), word(*keyword))
            }
            Condition::Related(related) => self.exists(alias, related),
            Condition::Seen(rule) => self.condition(alias, rule),
            Condition::Search(left, search, configuration, text) => {
                let value = self.expression(alias, left);
                let words = self.bind(left.field.name, TEXT, text.clone());
                // One of a list of our own, never a reader's text.
                let configuration = configuration
                    .map(|name| format!("'pg_catalog.{name}'::regconfig, "))
                    .unwrap_or_default();
                let read = reader(*search);
                format!("(to_tsvector({configuration}{value}) @@ {read}({configuration}{words}))")
            }
        }
    }

    /// A parameter of the same type as the left side.
    fn like(&mut self, left: &Expression<'_>, text: &str) -> String {
        self.bind(left.field.name, left.kind().oid(), text.to_owned())
    }

    fn one_of(&mut self, alias: &str, left: &Expression<'_>, values: &[String]) -> String {
        if values.is_empty() {
            return "false".to_owned();
        }
        let value = self.expression(alias, left);
        match array_of(left.kind()) {
            Some(oid) => {
                let list = array::write(values.iter().map(Some));
                let list = self.bind(left.field.name, oid, list);
                format!("({value} = any({list}))")
            }
            // An array of arrays would be one array of more dimensions.
            None => {
                let ways: Vec<String> = values
                    .iter()
                    .map(|text| format!("{value} = {}", self.like(left, text)))
                    .collect();
                format!("({})", ways.join(" or "))
            }
        }
    }
}

pub(super) fn operator(comparator: Comparator) -> &'static str {
    match comparator {
        Comparator::Eq => "=",
        Comparator::Neq => "<>",
        Comparator::Gt => ">",
        Comparator::Gte => ">=",
        Comparator::Lt => "<",
        Comparator::Lte => "<=",
        Comparator::Like => "like",
        Comparator::Ilike => "ilike",
        Comparator::Match => "~",
        Comparator::Imatch => "~*",
        Comparator::IsDistinct => "is distinct from",
        Comparator::Cs => "@>",
        Comparator::Cd => "<@",
        Comparator::Ov => "&&",
    }
}

fn reader(search: Search) -> &'static str {
    match search {
        Search::Fts => "to_tsquery",
        Search::Plfts => "plainto_tsquery",
        Search::Phfts => "phraseto_tsquery",
        Search::Wfts => "websearch_to_tsquery",
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

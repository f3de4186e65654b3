//! Embedded rows of related read models: each embed is a plan of its own, tied to the row that it belongs to.

use std::sync::Arc;

use super::condition::Condition;
use super::expression::{Expression, Field, expression};
use super::{Around, Plan};
use crate::query::parse::{self, Join, Keyword, Name, Nested, Part, Request, Selected, Term, Test};
use crate::query::relations::{self, Relation};
use crate::query::{Limits, Place, Refusal};
use crate::read_model::{Column, ReadModel};

/// Rows of a related read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded<'m> {
    /// What it is called in the answer.
    pub name: String,
    /// What leads to the rows.
    pub link: Link<'m>,
    /// Whether there is at most one row.
    pub is_one: bool,
    /// What is shown of them: which, in which order, how many.
    pub plan: Plan<'m>,
    /// The relation, as it was written.
    relation: String,
    is_inner: bool,
}

/// What ties rows of a read model to those of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link<'m> {
    /// The read model of the tied rows.
    pub model: &'m ReadModel,
    /// The generation that they are read from.
    pub generation: i64,
    /// The schema of its tables.
    pub schema: &'m str,
    /// Whether its positions are those of the same source.
    pub shares_source: bool,
    /// Columns that are equal: those of the one, those of the tied ones.
    pub columns: Vec<(Field<'m>, Field<'m>)>,
}

/// Rows that are tied to a row and fulfil conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related<'m> {
    /// What ties them.
    pub link: Link<'m>,
    /// The conditions.
    pub conditions: Vec<Condition<'m>>,
}

impl<'m> Embedded<'m> {
    /// The rows, however many of them are shown.
    fn related(&self) -> Related<'m> {
        Related {
            link: self.link.clone(),
            conditions: self.plan.conditions.clone(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.relation == name
    }

    /// The same when the row exists only with them.
    pub(super) fn required(&self) -> Option<Condition<'m>> {
        self.is_inner
            .then(|| Condition::Related(Box::new(self.related())))
    }
}

/// The embeds of a `select`, in its order; and that nothing else is asked of what is not embedded.
pub(super) fn embeds<'m>(
    model: &'m ReadModel,
    around: &Around<'m>,
    request: &Request,
    limits: &Limits,
) -> Result<Vec<Arc<Embedded<'m>>>, Refusal> {
    let mut embeds = Vec::new();
    for selected in request.select.iter().flatten() {
        if let Selected::Embed(embed) = selected {
            embeds.push(Arc::new(embedded(model, around, embed, request, limits)?));
        }
    }
    for nested in &request.nested {
        let Some(name) = nested.relations.first() else {
            continue;
        };
        if !embeds.iter().any(|embed| embed.is_called(&name.text)) {
            return Err(not_embedded(name));
        }
    }
    Ok(embeds)
}

fn embedded<'m>(
    model: &'m ReadModel,
    around: &Around<'m>,
    embed: &parse::Embed,
    request: &Request,
    limits: &Limits,
) -> Result<Embedded<'m>, Refusal> {
    let relation = relations::find(around, model, &embed.relation, embed.hint.as_ref())?;
    let name = embed.alias.as_ref().unwrap_or(&embed.relation).text.clone();
    let is_one = relation.cardinality.is_to_one();
    if embed.spread && !is_one {
        let message = format!(
            "a row has several \"{}\", whose columns cannot become its own",
            embed.relation.text
        );
        return Err(Refusal::new("not_supported", message)
            .hint("leave the three dots out: it becomes an array")
            .at(&embed.relation.place));
    }
    let target = &relation.target.model;
    let mut inner = Request {
        select: Some(embed.select.clone()),
        ..Request::default()
    };
    for nested in &request.nested {
        if let [first, rest @ ..] = nested.relations.as_slice()
            && (first.text == name || first.text == embed.relation.text)
        {
            ask(&mut inner, rest, &nested.part);
        }
    }
    let plan = super::rows(target, around, &inner, limits)?;
    if plan.is_grouped() && is_one {
        let message = "functions over rows are not for a single row";
        return Err(Refusal::new("not_supported", message).at(&embed.relation.place));
    }
    Ok(Embedded {
        name,
        link: link(&relation, around),
        is_one,
        plan,
        relation: embed.relation.text.clone(),
        is_inner: embed.join == Some(Join::Inner),
    })
}

fn link<'m>(relation: &Relation<'m>, around: &Around<'m>) -> Link<'m> {
    fn field(column: &Column) -> Field<'_> {
        Field {
            name: &column.name,
            kind: column.kind,
            nullable: column.nullable,
        }
    }
    let target = relation.target;
    Link {
        model: &target.model,
        generation: target.generation,
        schema: &target.schema,
        shares_source: around.shares_source(target),
        columns: (relation.columns.iter())
            .map(|(own, theirs)| (field(own), field(theirs)))
            .collect(),
    }
}

/// Passes on what is asked of an embed, or of one within it.
fn ask(request: &mut Request, relations: &[Name], part: &Part) {
    if !relations.is_empty() {
        request.nested.push(Nested {
            relations: relations.to_vec(),
            part: part.clone(),
        });
        return;
    }
    match part {
        Part::Filter(filter) => request.filters.push(filter.clone()),
        Part::Order(terms) => request.order.clone_from(terms),
        Part::Limit(limit) => request.limit = Some(*limit),
        Part::Offset(offset) => request.offset = *offset,
    }
}

fn not_embedded(name: &Name) -> Refusal {
    let shown: String = name.text.chars().take(80).collect();
    Refusal::new(
        "not_embedded",
        format!("'{shown}' is not an embedded resource in this request"),
    )
    .hint(format!(
        "Verify that '{shown}' is included in the 'select' query parameter."
    ))
    .at(&name.place)
}

/// A test of an embed as a whole: whether there are such rows.
pub(super) fn existence<'m>(
    embeds: &[Arc<Embedded<'m>>],
    name: &Name,
    test: &Test,
) -> Option<Result<Condition<'m>, Refusal>> {
    let embed = embeds.iter().find(|embed| embed.is_called(&name.text))?;
    let related = Condition::Related(Box::new(embed.related()));
    Some(match test {
        Test::Is(Keyword::Null, _) => Ok(Condition::Not(Box::new(related))),
        Test::Is(Keyword::NotNull, _) => Ok(related),
        _ => Err(bad_test(&name.text, &name.place)),
    })
}

fn bad_test(name: &str, place: &Place) -> Refusal {
    let shown: String = name.chars().take(80).collect();
    Refusal::new(
        "invalid_embed_filter",
        format!("Bad operator on the '{shown}' embedded resource"),
    )
    .hint("Only is null or not is null filters are allowed on embedded resources")
    .at(place)
}

/// The value of an embedded row to sort by.
pub(super) fn sorted<'m>(
    model: &ReadModel,
    embeds: &[Arc<Embedded<'m>>],
    relation: &Name,
    term: &Term,
    limits: &Limits,
) -> Result<(Related<'m>, Expression<'m>), Refusal> {
    let embed = embeds
        .iter()
        .find(|embed| embed.is_called(&relation.text))
        .ok_or_else(|| not_embedded(relation))?;
    if !embed.is_one {
        let refusal = Refusal::new(
            "related_order",
            format!("A related order on '{}' is not possible", embed.name),
        );
        return Err(refusal
            .hint(format!(
                "'{}' and '{}' do not form a many-to-one or one-to-one relationship",
                model.name, embed.name
            ))
            .at(&relation.place));
    }
    let value = expression(embed.link.model, &term.path, limits)?;
    Ok((embed.related(), value))
}

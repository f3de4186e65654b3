//! Embedded rows of related read models: each embed is a plan of its own, tied to the row that it belongs to.

use std::cell::Cell;
use std::sync::Arc;

use super::condition::Condition;
use super::expression::{Expression, Field, expression};
use super::{Around, By, Output, Plan};
use crate::query::parse::{self, Join, Keyword, Name, Request, Selected, Term, Test};
use crate::query::relations::{self, Relation, Way};
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
    place: Place,
    is_inner: bool,
    /// How many rows there can be of it, and along the longest path of embeds within it, for one row.
    most: u64,
    /// How many tests of embeds its plan has.
    tests: usize,
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
    /// Columns that are equal: those of the one, or of the row between, and those of the tied ones.
    pub columns: Vec<(Field<'m>, Field<'m>)>,
    /// The rows between that tie them, if they are not tied to each other: those that the reader may see.
    pub through: Option<Box<Related<'m>>>,
}

impl Link<'_> {
    /// Whether there may be rows between that the reader does not see.
    pub(super) fn hides_rows(&self) -> bool {
        (self.through.as_ref()).is_some_and(|through| super::hides_rows(&through.conditions))
    }
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
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.relation == name
    }
}

/// The embeds of one `select`.
pub(super) struct Embeds<'m> {
    list: Vec<Arc<Embedded<'m>>>,
    /// Tests of embeds so far, here and within.
    tests: Cell<usize>,
    most_tests: usize,
}

impl<'m> Embeds<'m> {
    pub(super) fn list(&self) -> &[Arc<Embedded<'m>>] {
        &self.list
    }

    pub(super) fn into_list(self) -> Vec<Arc<Embedded<'m>>> {
        self.list
    }

    fn find(&self, name: &str) -> Option<&Embedded<'m>> {
        let mut embeds = self.list.iter().map(Arc::as_ref);
        embeds.find(|embed| embed.is_called(name))
    }

    /// A test repeats all tests within the embed, so that their number could grow by a factor with each level.
    fn spend(&self, tests: usize, place: &Place) -> Result<(), Refusal> {
        let spent = self.tests.get().saturating_add(tests);
        self.tests.set(spent);
        match spent <= self.most_tests {
            true => Ok(()),
            false => Err(Refusal::new(
                "query_too_large",
                format!("embeds are tested more than {} times", self.most_tests),
                "each test of an embed repeats those within it: leave out what is asked twice",
            )
            .at(place)),
        }
    }

    /// The rows of an embed, however many of them are shown.
    fn related(&self, embed: &Embedded<'m>, place: &Place) -> Result<Related<'m>, Refusal> {
        let conditions = &embed.plan.conditions;
        self.spend(tests(conditions).saturating_add(1), place)?;
        Ok(Related {
            link: embed.link.clone(),
            conditions: conditions.clone(),
        })
    }

    /// The conditions of embeds without which a row is not shown.
    pub(super) fn required(&self) -> Result<Vec<Condition<'m>>, Refusal> {
        let inner = self.list.iter().filter(|embed| embed.is_inner);
        inner
            .map(|embed| {
                let related = self.related(embed, &embed.place)?;
                Ok(Condition::Related(Box::new(related)))
            })
            .collect()
    }

    /// Refuses more rows along a path, for one outer row, than two levels without limits have.
    pub(super) fn few(&self, limits: &Limits) -> Result<(), Refusal> {
        let most = limits.rows.saturating_mul(limits.rows);
        let many = |embed: &&Arc<Embedded<'_>>| embed.most > most;
        match self.list.iter().find(many) {
            None => Ok(()),
            Some(embed) => Err(Refusal::new(
                "query_too_large",
                format!("there could be more than {most} rows of \"{}\" and the embeds within it", embed.name), format!(
                "give limits whose product is smaller: {0}.limit, and so on for the embeds within it",
                embed.name
            ))
            .at(&embed.place)),
        }
    }
}

/// How often embeds are tested in conditions.
fn tests(conditions: &[Condition<'_>]) -> usize {
    let of = |condition: &Condition<'_>| match condition {
        Condition::All(inner) | Condition::Any(inner) => tests(inner),
        Condition::Not(inner) => tests(std::slice::from_ref(inner)),
        Condition::Related(related) => 1 + tests(&related.conditions),
        _ => 0,
    };
    conditions.iter().map(of).sum()
}

/// How many rows an embed with this plan has for one row, and along the longest path within it.
fn most(plan: &Plan<'_>) -> u64 {
    // Nothing of it is shown, so there is nothing to count.
    if plan.select.is_empty() {
        return 0;
    }
    let is_one_group = plan.select.iter().all(Output::is_aggregate);
    let own = if is_one_group { 1 } else { plan.limit };
    let within = plan.embeds.iter().map(|embed| embed.most).max();
    own.saturating_mul(within.unwrap_or(1).max(1))
}

/// The embeds of a `select`, in its order; and that nothing else is asked of what is not embedded.
pub(super) fn embeds<'m>(
    model: &'m ReadModel,
    around: &Around<'m>,
    request: &Request,
    limits: &Limits,
) -> Result<Embeds<'m>, Refusal> {
    let mut embeds = Embeds {
        list: Vec::new(),
        tests: Cell::new(0),
        most_tests: limits.embed_tests,
    };
    for selected in request.select.iter().flatten() {
        if let Selected::Embed(embed) = selected {
            let embed = embedded(model, around, embed, request, limits)?;
            embeds.spend(embed.tests, &embed.place)?;
            embeds.list.push(Arc::new(embed));
        }
    }
    for nested in &request.nested {
        let Some(name) = nested.relations.first() else {
            continue;
        };
        if embeds.find(&name.text).is_none() {
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
    let way = relations::find(around, model, &embed.relation, embed.hint.as_ref())?;
    let name = embed.alias.as_ref().unwrap_or(&embed.relation).text.clone();
    let is_one = way.cardinality().is_to_one();
    let target = &way.relation.target.model;
    let mut inner = Request {
        select: Some(embed.select.clone()),
        ..Request::default()
    };
    for nested in &request.nested {
        if let [first, rest @ ..] = nested.relations.as_slice()
            && (first.text == name || first.text == embed.relation.text)
        {
            inner.add(rest.to_vec(), nested.part.clone());
        }
    }
    if is_one {
        inner.limit = Some(inner.limit.unwrap_or(1).min(1));
    }
    let plan = super::rows(target, around, &inner, limits)?;
    if plan.is_grouped() && is_one {
        let message = "functions over rows are not for a single row";
        let hint =
            "select its columns instead, or ask for the function in a query of that read model";
        return Err(Refusal::new("not_supported", message, hint).at(&embed.relation.place));
    }
    if plan.is_grouped() && embed.spread {
        let message =
            "functions over rows cannot become columns of the row that the rows belong to";
        let hint = "leave the three dots out: they become members of an array's objects";
        return Err(Refusal::new("not_supported", message, hint).at(&embed.relation.place));
    }
    // Each column that becomes the row's own is read by itself.
    let times = if embed.spread { plan.select.len() } else { 1 };
    Ok(Embedded {
        name,
        link: link(&way, around)?,
        is_one,
        most: most(&plan).saturating_mul(times as u64),
        tests: all_tests(&plan).saturating_mul(times),
        plan,
        relation: embed.relation.text.clone(),
        place: embed.relation.place.clone(),
        is_inner: embed.join == Some(Join::Inner),
    })
}

/// How often embeds are tested in a plan and in those of its embeds.
fn all_tests(plan: &Plan<'_>) -> usize {
    let sorted = plan.sort.iter().map(|sort| match &sort.by {
        By::Related(related, _) => 1 + tests(&related.conditions),
        By::Value(_) | By::Output(_) => 0,
    });
    let within = plan.embeds.iter().map(|embed| embed.tests);
    tests(&plan.conditions) + sorted.chain(within).sum::<usize>()
}

fn link<'m>(way: &Way<'m>, around: &Around<'m>) -> Result<Link<'m>, Refusal> {
    let through = match &way.through {
        None => None,
        Some(near) => Some(Box::new(Related {
            link: step(near, around, None),
            conditions: around
                .sight(&near.target.model)
                .conditions(&near.target.model)?,
        })),
    };
    Ok(step(&way.relation, around, through))
}

fn step<'m>(
    relation: &Relation<'m>,
    around: &Around<'m>,
    through: Option<Box<Related<'m>>>,
) -> Link<'m> {
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
        through,
    }
}

fn not_embedded(name: &Name) -> Refusal {
    let shown: String = name.text.chars().take(80).collect();
    Refusal::new(
        "not_embedded",
        format!("'{shown}' is not an embedded resource in this request"),
        format!("Verify that '{shown}' is included in the 'select' query parameter."),
    )
    .at(&name.place)
}

/// A test of an embed as a whole: whether there are such rows.
pub(super) fn existence<'m>(
    embeds: &Embeds<'m>,
    name: &Name,
    test: &Test,
) -> Option<Result<Condition<'m>, Refusal>> {
    let embed = embeds.find(&name.text)?;
    let related = match embeds.related(embed, &name.place) {
        Ok(related) => Condition::Related(Box::new(related)),
        Err(refusal) => return Some(Err(refusal)),
    };
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
        "Only is null or not is null filters are allowed on embedded resources",
    )
    .at(place)
}

/// The value of an embedded row to sort by.
pub(super) fn sorted<'m>(
    model: &ReadModel,
    embeds: &Embeds<'m>,
    relation: &Name,
    term: &Term,
    limits: &Limits,
) -> Result<(Related<'m>, Expression<'m>), Refusal> {
    let embed = embeds
        .find(&relation.text)
        .ok_or_else(|| not_embedded(relation))?;
    if !embed.is_one {
        let refusal = Refusal::new(
            "related_order",
            format!("A related order on '{}' is not possible", embed.name),
            format!(
                "'{}' and '{}' do not form a many-to-one or one-to-one relationship",
                model.name, embed.name
            ),
        );
        return Err(refusal.at(&relation.place));
    }
    let value = expression(embed.link.model, &term.path, limits)?;
    Ok((embeds.related(embed, &relation.place)?, value))
}

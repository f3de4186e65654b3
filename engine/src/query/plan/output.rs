//! What an answer's rows show.

use std::sync::Arc;

use super::embed::Embedded;
use super::expression::{Expression, JSON, default_name, expression, own};
use super::{cast, twice};
use crate::query::parse::{Function, Item, Name, Selected, Shown, Value};
use crate::query::{Limits, Place, Refusal};
use crate::read_model::{ColumnType, ReadModel, Scalar};

/// One member of an answer's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output<'m> {
    /// What it is called.
    pub name: String,
    /// What it shows.
    pub source: Source<'m>,
}

/// What a member of a row shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<'m> {
    /// A value of the row, or what all rows of a group agree in.
    Value(Expression<'m>),
    /// A value of a group of rows.
    Aggregate(Aggregate<'m>),
    /// Embedded rows: an array, or the only one as an object.
    Embed(Arc<Embedded<'m>>),
    /// The output with this index of the only embedded row, or of all of them as an array.
    Spread(Arc<Embedded<'m>>, usize),
}

/// A function over the rows of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate<'m> {
    /// The function.
    pub function: Function,
    /// What it is applied to; `None`: the rows themselves.
    pub argument: Option<Expression<'m>>,
    /// The type that its result is given.
    pub cast: Option<ColumnType>,
}

impl Source<'_> {
    /// Whether rows can be grouped by it: what is written as JSON is neither equal to anything nor different.
    fn can_group(&self) -> bool {
        match self {
            Source::Value(value) => value.kind() != JSON,
            Source::Aggregate(_) => true,
            Source::Embed(_) => false,
            Source::Spread(embedded, index) => {
                let source = embedded
                    .plan
                    .select
                    .get(*index)
                    .map(|output| &output.source);
                embedded.is_one && source.is_some_and(Source::can_group)
            }
        }
    }
}

impl<'m> Output<'m> {
    fn column(column: super::Field<'m>) -> Self {
        Self {
            name: column.name.to_owned(),
            source: Source::Value(Expression::of(column)),
        }
    }

    /// Whether it is a value of a group of rows.
    pub fn is_aggregate(&self) -> bool {
        matches!(self.source, Source::Aggregate(_))
    }
}

pub(super) fn outputs<'m>(
    model: &'m ReadModel,
    selected: Option<&[Selected]>,
    embeds: &[Arc<Embedded<'m>>],
    limits: &Limits,
) -> Result<Vec<Output<'m>>, Refusal> {
    let Some(selected) = selected else {
        return Ok(own(model).map(Output::column).collect());
    };
    let is_grouped = selected.iter().any(|element| match element {
        Selected::Item(item) => match &item.shown {
            Shown::Value(value) => is_row_count(model, value),
            Shown::Aggregate(_) => true,
        },
        Selected::Own(_) | Selected::Embed(_) => false,
    });
    let mut chosen = Chosen {
        outputs: Vec::new(),
        is_grouped,
    };
    let mut embeds = embeds.iter();
    for element in selected {
        match element {
            Selected::Own(place) => {
                for column in own(model).filter(|f| !is_named(selected, f.name)) {
                    chosen.add(Output::column(column), place)?;
                }
            }
            Selected::Item(item) => chosen.add(output(model, item, limits)?, &item.place)?,
            Selected::Embed(embed) => {
                // There is one for each.
                let Some(embedded) = embeds.next() else {
                    continue;
                };
                chosen.embed(embedded, embed.spread, &embed.relation.place)?;
            }
        }
    }
    Ok(chosen.outputs)
}

struct Chosen<'m> {
    outputs: Vec<Output<'m>>,
    is_grouped: bool,
}

impl<'m> Chosen<'m> {
    /// An embed of which nothing is selected is there for conditions only.
    fn embed(
        &mut self,
        embedded: &Arc<Embedded<'m>>,
        is_spread: bool,
        place: &Place,
    ) -> Result<(), Refusal> {
        let inner = &embedded.plan.select;
        let sources = (0..inner.len()).map(|index| Source::Spread(embedded.clone(), index));
        let can_group = is_spread && sources.clone().all(|source| source.can_group());
        if self.is_grouped && !inner.is_empty() && !can_group {
            return Err(Refusal::new(
                "not_supported",
                "beside a function over rows there are no embedded rows, by which rows cannot be grouped",
                "group by columns of the only row with ...name(column); ask for functions of the embedded rows within the embed",
            )
            .at(place));
        }
        if is_spread {
            for (output, source) in inner.iter().zip(sources) {
                let name = output.name.clone();
                self.add(Output { name, source }, place)?;
            }
        } else if !inner.is_empty() {
            let source = Source::Embed(embedded.clone());
            let name = embedded.name.clone();
            self.add(Output { name, source }, place)?;
        }
        Ok(())
    }

    fn add(&mut self, output: Output<'m>, place: &Place) -> Result<(), Refusal> {
        if self.outputs.iter().any(|other| other.name == output.name) {
            let hint = "give one of them another name: other:column";
            return Err(twice("invalid_select", &output.name, place, hint));
        }
        if let Source::Value(value) = &output.source
            && self.is_grouped
            && value.kind() == JSON
        {
            return Err(Refusal::new(
                "invalid_select",
                format!("{value} has type json, by which rows cannot be grouped"), "beside a function over rows, the other values say what the groups are; cast it to jsonb or text")
            .at(place));
        }
        self.outputs.push(output);
        Ok(())
    }
}

/// With `*` beside a column's own name, the column stands where it is named.
fn is_named(selected: &[Selected], name: &str) -> bool {
    selected.iter().any(|element| match element {
        Selected::Item(Item {
            alias: None,
            shown: Shown::Value(Value { path, cast: None }),
            ..
        }) => path.steps.is_empty() && path.name.text == name,
        _ => false,
    })
}

fn output<'m>(model: &'m ReadModel, item: &Item, limits: &Limits) -> Result<Output<'m>, Refusal> {
    let (name, source) = match &item.shown {
        Shown::Value(value) if is_row_count(model, value) => {
            let cast = value.cast.as_ref();
            aggregate(model, Function::Count, None, cast, limits)?
        }
        Shown::Value(value) => {
            let value = self::value(model, value, limits)?;
            (default_name(&value), Source::Value(value))
        }
        Shown::Aggregate(shown) => {
            let (argument, cast) = (shown.argument.as_ref(), shown.cast.as_ref());
            aggregate(model, shown.function, argument, cast, limits)?
        }
    };
    let name = item.alias.as_ref().map_or(name, |alias| alias.text.clone());
    Ok(Output { name, source })
}

/// `count` without parentheses counts rows too, as it did in PostgREST before there were other functions; unless a
/// column has that name.
fn is_row_count(model: &ReadModel, value: &Value) -> bool {
    value.path.steps.is_empty()
        && value.path.name.text == "count"
        && super::find(model, "count").is_none()
}

fn value<'m>(
    model: &'m ReadModel,
    value: &Value,
    limits: &Limits,
) -> Result<Expression<'m>, Refusal> {
    expression(model, &value.path, limits)?.cast_to(value.cast.as_ref())
}

fn aggregate<'m>(
    model: &'m ReadModel,
    function: Function,
    argument: Option<&Value>,
    to: Option<&Name>,
    limits: &Limits,
) -> Result<(String, Source<'m>), Refusal> {
    let looked_up = argument.map(|value| self::value(model, value, limits));
    let looked_up = looked_up.transpose()?;
    let kind = match (&looked_up, argument) {
        (Some(expression), Some(value)) => {
            result(function, expression.kind()).ok_or_else(|| {
                let (name, kind) = (function.name(), expression.kind());
                Refusal::new(
                    "unfit_function",
                    format!("{expression} has type {kind}, on which {name}() does not work"), match function {
                    Function::Sum | Function::Avg => {
                        "it works on numbers; cast it before the function: data->>a::numeric.sum()"
                    }
                    _ => "it works on numbers, text, dates, times and arrays",
                })
                .at(&value.path.name.place)
            })?
        }
        _ => ColumnType::Scalar(Scalar::Int8),
    };
    let cast = match to {
        None => None,
        Some(name) => {
            let to = cast::find(name)?;
            if !cast::is_possible(kind, to) {
                return Err(Refusal::new(
                    "invalid_cast",
                    format!(
                        "{}() gives {kind} here, which cannot be cast to {to}",
                        function.name()
                    ),
                    cast::targets(kind),
                )
                .at(&name.place));
            }
            Some(to)
        }
    };
    let source = Source::Aggregate(Aggregate {
        function,
        argument: looked_up,
        cast,
    });
    Ok((function.name().to_owned(), source))
}

/// The type of a function's result, if it works on the type.
fn result(function: Function, kind: ColumnType) -> Option<ColumnType> {
    use Scalar::{Bool, Bytea, Float4, Float8, Int2, Int4, Int8, Json, Jsonb, Numeric, Uuid};
    let scalar = match (function, kind) {
        (Function::Count, _) => Int8,
        // PostgreSQL compares arrays as it does rows, whatever their elements.
        (Function::Min | Function::Max, ColumnType::Array(_)) => return Some(kind),
        (_, ColumnType::Array(_)) => return None,
        (Function::Min | Function::Max, ColumnType::Scalar(scalar)) => match scalar {
            Bool | Bytea | Uuid | Json | Jsonb => return None,
            other => other,
        },
        (Function::Sum, ColumnType::Scalar(scalar)) => match scalar {
            Int2 | Int4 => Int8,
            Int8 | Numeric => Numeric,
            Float4 => Float4,
            Float8 => Float8,
            _ => return None,
        },
        (Function::Avg, ColumnType::Scalar(scalar)) => match scalar {
            Int2 | Int4 | Int8 | Numeric => Numeric,
            Float4 | Float8 => Float8,
            _ => return None,
        },
    };
    Some(ColumnType::Scalar(scalar))
}

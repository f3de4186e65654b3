//! A rule + a read model + somebody's claims -> a condition.
//!
//! A rule decides as SQL does, with a third outcome beside true and false: a comparison with a claim that is missing, or
//! that cannot be a value of the column's type, is *unknown*, and so is its negation. A row is seen when the rule is true for
//! it. Negations are moved inwards to the comparisons first; what is left are `and` and `or`, under which an unknown
//! comparison can be taken for false.

use serde_json::{Number, Value};

use super::Claims;
use super::parse::{Comparison, Literal, Operand, Rule, Several, Tree};
use crate::query::nearest;
use crate::query::parse::{Comparator, Keyword};
use crate::query::plan::{Condition, Expression, Field, fields};
use crate::query::value::{self, array};
use crate::read_model::{ColumnType, ReadModel, Scalar};

/// Whole numbers up to here are exact as floating-point numbers, which is what JSON's numbers with a point become.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Rule {
    /// Checks that every column exists and that values fit the columns' types. Fails with the reason.
    pub fn check(&self, model: &ReadModel) -> Result<(), String> {
        check(&self.0, model)
    }

    /// What holds for the rows that somebody with these claims may see.
    pub(super) fn conditions<'m>(
        &self,
        model: &'m ReadModel,
        claims: &Claims,
    ) -> Result<Condition<'m>, String> {
        // All of it, also what these claims make needless: a rule that does not fit shows nothing to anybody.
        self.check(model)?;
        lower(&self.0, model, claims, false)
    }
}

fn check(tree: &Tree, model: &ReadModel) -> Result<(), String> {
    match tree {
        Tree::All(trees) | Tree::Any(trees) => trees.iter().try_for_each(|t| check(t, model)),
        Tree::Not(tree) => check(tree, model),
        Tree::IsNull(column) => nullable(model, column).map(drop),
        Tree::Compare(Operand::Column(column), _, other)
        | Tree::Compare(other, _, Operand::Column(column)) => {
            let field = comparable(model, column)?;
            match other {
                Operand::Literal(literal) => of_literal(field, literal).map(drop),
                Operand::Claim(_) | Operand::Column(_) => Ok(()),
            }
        }
        Tree::In(Operand::Column(column), several) => {
            let field = comparable(model, column)?;
            match several {
                Several::Claim(_) | Several::Column(_) => Ok(()),
                Several::Literals(literals) => literals
                    .iter()
                    .try_for_each(|literal| of_literal(field, literal).map(drop)),
            }
        }
        Tree::In(value, Several::Column(column)) => {
            let element = element(model, column)?;
            match value {
                Operand::Literal(literal) => of_literal(element, literal).map(drop),
                Operand::Claim(_) | Operand::Column(_) => Ok(()),
            }
        }
        Tree::Compare(..) | Tree::In(..) => Ok(()),
    }
}

/// A column that is an array, as if it were one of its elements.
fn element<'m>(model: &'m ReadModel, name: &str) -> Result<Field<'m>, String> {
    let field = find(model, name)?;
    match field.kind {
        ColumnType::Array(scalar) => Ok(Field {
            kind: ColumnType::Scalar(scalar),
            ..field
        }),
        ColumnType::Scalar(_) => Err(format!(
            "column \"{name}\" has type {}, which is no array: nothing is in it",
            field.kind
        )),
    }
}

fn find<'m>(model: &'m ReadModel, name: &str) -> Result<Field<'m>, String> {
    fields(model)
        .find(|field| field.name == name)
        .ok_or_else(|| {
            let near = nearest(name, fields(model).map(|field| field.name));
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            format!(
                "read model \"{}\" has no column \"{name}\"{near}",
                model.name
            )
        })
}

fn comparable<'m>(model: &'m ReadModel, name: &str) -> Result<Field<'m>, String> {
    let field = find(model, name)?;
    match field.kind {
        ColumnType::Scalar(Scalar::Json | Scalar::Jsonb) | ColumnType::Array(_) => Err(format!(
            "column \"{name}\" has type {}, which a rule cannot compare",
            field.kind
        )),
        ColumnType::Scalar(_) => Ok(field),
    }
}

/// The `null` of JSON is none to a read, and NULL to whoever follows: a rule must not say two things.
fn nullable<'m>(model: &'m ReadModel, name: &str) -> Result<Field<'m>, String> {
    let field = find(model, name)?;
    match field.kind {
        ColumnType::Scalar(Scalar::Json | Scalar::Jsonb) => Err(format!(
            "column \"{name}\" has type {}, which a rule cannot compare, not even with null",
            field.kind
        )),
        ColumnType::Scalar(_) | ColumnType::Array(_) => Ok(field),
    }
}

fn of_literal(field: Field<'_>, literal: &Literal) -> Result<String, String> {
    let is_text = field.kind == ColumnType::Scalar(Scalar::Text);
    let text = match literal {
        Literal::Number(_) | Literal::Bool(_) if is_text => {
            return Err(format!(
                "column \"{}\" has type text: write the value in single quotes",
                field.name
            ));
        }
        Literal::Text(text) | Literal::Number(text) => text.clone(),
        Literal::Bool(value) => value.to_string(),
    };
    let misfit = |hint: String| {
        format!(
            "{text} is no value of column \"{}\", which has type {}: {hint}",
            field.name, field.kind
        )
    };
    if text.contains('\0') {
        return Err(misfit("PostgreSQL cannot store U+0000".into()));
    }
    value::check(field.kind, &text).map_err(|why| misfit(why.0))
}

/// The value of a column's type that a claim is, if it is one.
fn of_claim(field: Field<'_>, claim: &Value) -> Option<String> {
    let ColumnType::Scalar(scalar) = field.kind else {
        return None;
    };
    let text = match (claim, scalar) {
        (Value::String(text), _) => text.clone(),
        (Value::Bool(value), Scalar::Bool) => value.to_string(),
        (
            Value::Number(number),
            Scalar::Int2
            | Scalar::Int4
            | Scalar::Int8
            | Scalar::Float4
            | Scalar::Float8
            | Scalar::Numeric,
        ) if is_exact(number) => number.to_string(),
        (Value::Number(number), Scalar::Text) if !number.is_f64() => number.to_string(),
        _ => return None,
    };
    let is_storable = !text.contains('\0');
    value::check(field.kind, &text).ok().filter(|_| is_storable)
}

fn is_exact(number: &Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|number| number.abs() < EXACT)
}

/// The claim at the end of a path through objects.
fn claim<'c>(claims: &'c Claims, path: &[String]) -> Option<&'c Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(claims.get(first)?, |value, name| value.get(name.as_str()))
}

fn always<'m>(holds: bool) -> Condition<'m> {
    match holds {
        true => Condition::All(Vec::new()),
        false => Condition::Any(Vec::new()),
    }
}

fn lower<'m>(
    tree: &Tree,
    model: &'m ReadModel,
    claims: &Claims,
    negated: bool,
) -> Result<Condition<'m>, String> {
    let each = |trees: &[Tree]| -> Result<Vec<_>, String> {
        let lowered = trees.iter().map(|tree| lower(tree, model, claims, negated));
        lowered.collect()
    };
    Ok(match tree {
        Tree::Not(tree) => lower(tree, model, claims, !negated)?,
        Tree::All(trees) if !negated => Condition::All(each(trees)?),
        Tree::Any(trees) if negated => Condition::All(each(trees)?),
        Tree::All(trees) | Tree::Any(trees) => Condition::Any(each(trees)?),
        Tree::IsNull(column) => {
            let keyword = if negated {
                Keyword::NotNull
            } else {
                Keyword::Null
            };
            Condition::Is(Expression::of(find(model, column)?), keyword)
        }
        Tree::Compare(Operand::Column(column), comparison, other) => {
            let field = find(model, column)?;
            compare(field, *comparison, other, claims, negated)
        }
        Tree::Compare(other, comparison, Operand::Column(column)) => {
            let field = find(model, column)?;
            compare(field, flipped(*comparison), other, claims, negated)
        }
        Tree::Compare(left, comparison, right) => {
            let is_equality = (*comparison == Comparison::Eq) != negated;
            let equal = constant(left, claims).zip(constant(right, claims));
            let equal = equal.and_then(|(left, right)| equal_claims(&left, &right));
            always(equal.is_some_and(|equal| equal == is_equality))
        }
        Tree::In(Operand::Column(column), several) => {
            let field = find(model, column)?;
            one_of(field, several, claims, negated)
        }
        Tree::In(value, Several::Column(column)) => {
            let value = value_of(value, element(model, column)?, claims);
            let Some(value) = value else {
                return Ok(always(false));
            };
            let elements = Expression::of(find(model, column)?);
            let value = array::write([Some(value)]);
            let contains = Condition::Compare(elements, Comparator::Cs, value);
            match negated {
                true => Condition::Not(Box::new(contains)),
                false => contains,
            }
        }
        Tree::In(constant_operand, several) => {
            let value = constant(constant_operand, claims);
            always(value.is_some_and(|value| is_among(&value, several, claims, negated)))
        }
    })
}

/// The value of a column's type that an operand is, if it is one.
fn value_of(operand: &Operand, field: Field<'_>, claims: &Claims) -> Option<String> {
    match operand {
        Operand::Literal(literal) => of_literal(field, literal).ok(),
        Operand::Claim(path) => of_claim(field, claim(claims, path)?),
        Operand::Column(_) => None,
    }
}

fn compare<'m>(
    field: Field<'m>,
    comparison: Comparison,
    other: &Operand,
    claims: &Claims,
    negated: bool,
) -> Condition<'m> {
    match value_of(other, field, claims) {
        Some(value) => Condition::Compare(
            Expression::of(field),
            comparator(comparison, negated),
            value,
        ),
        None => always(false),
    }
}

fn one_of<'m>(
    field: Field<'m>,
    several: &Several,
    claims: &Claims,
    negated: bool,
) -> Condition<'m> {
    let values: Vec<Option<String>> = match several {
        Several::Literals(literals) => literals.iter().map(|l| of_literal(field, l).ok()).collect(),
        Several::Claim(path) => match claim(claims, path) {
            Some(Value::Array(elements)) => elements.iter().map(|e| of_claim(field, e)).collect(),
            _ => return always(false),
        },
        Several::Column(_) => return always(false),
    };
    if negated && values.iter().any(Option::is_none) {
        // It might be the very value of the row.
        return always(false);
    }
    let one_of = Condition::In(
        Expression::of(field),
        values.into_iter().flatten().collect(),
    );
    match negated {
        true => Condition::Not(Box::new(one_of)),
        false => one_of,
    }
}

/// The value of an operand that is no column.
fn constant(operand: &Operand, claims: &Claims) -> Option<Value> {
    match operand {
        Operand::Claim(path) => claim(claims, path).cloned(),
        Operand::Literal(literal) => of_json(literal),
        Operand::Column(_) => None,
    }
}

fn of_json(literal: &Literal) -> Option<Value> {
    match literal {
        Literal::Text(text) => Some(Value::from(text.as_str())),
        Literal::Bool(value) => Some(Value::from(*value)),
        Literal::Number(number) => serde_json::from_str(number).ok(),
    }
}

/// Whether two values are equal; unknown for values of different types.
fn equal_claims(left: &Value, right: &Value) -> Option<bool> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left == right),
        (Value::Bool(left), Value::Bool(right)) => Some(left == right),
        (Value::Number(left), Value::Number(right)) if !left.is_f64() && !right.is_f64() => {
            Some(left == right)
        }
        (Value::Number(left), Value::Number(right)) => {
            let (left, right) = (left.as_f64()?, right.as_f64()?);
            (left.abs() < EXACT && right.abs() < EXACT).then_some(left == right)
        }
        _ => None,
    }
}

fn is_among(value: &Value, several: &Several, claims: &Claims, negated: bool) -> bool {
    let among: Vec<Option<bool>> = match several {
        Several::Literals(literals) => literals
            .iter()
            .map(|literal| equal_claims(value, &of_json(literal)?))
            .collect(),
        Several::Claim(path) => match claim(claims, path) {
            Some(Value::Array(elements)) => {
                elements.iter().map(|e| equal_claims(value, e)).collect()
            }
            _ => return false,
        },
        Several::Column(_) => return false,
    };
    match negated {
        true => among.iter().all(|equal| *equal == Some(false)),
        false => among.contains(&Some(true)),
    }
}

fn flipped(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Lt => Comparison::Gt,
        Comparison::Lte => Comparison::Gte,
        Comparison::Gt => Comparison::Lt,
        Comparison::Gte => Comparison::Lte,
        same => same,
    }
}

fn comparator(comparison: Comparison, negated: bool) -> Comparator {
    match (comparison, negated) {
        (Comparison::Eq, false) | (Comparison::Neq, true) => Comparator::Eq,
        (Comparison::Neq, false) | (Comparison::Eq, true) => Comparator::Neq,
        (Comparison::Lt, false) | (Comparison::Gte, true) => Comparator::Lt,
        (Comparison::Lte, false) | (Comparison::Gt, true) => Comparator::Lte,
        (Comparison::Gt, false) | (Comparison::Lte, true) => Comparator::Gt,
        (Comparison::Gte, false) | (Comparison::Lt, true) => Comparator::Gte,
    }
}

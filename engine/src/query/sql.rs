//! The statement: a checked query -> SQL and its bind parameters.
//!
//! Values are sent in text format with their column's type, so PostgreSQL reads them with the type's own input function
//! and plans with them as constants. Only identifiers and numbers of this module's own making stand in the text.

mod after;
mod changes;
mod condition;
mod embed;
mod expression;
mod lines;
mod others;
mod page;
mod total;

pub use changes::changes;
pub use lines::Lines;
pub use total::{Count, planned};

use super::catalog::Standing;
use super::plan::{Link, Plan};
use others::{NO_OTHERS, OTHERS};

/// SQL with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Statement {
    /// The text; `$1` is the first parameter.
    pub text: String,
    /// The parameters.
    pub parameters: Vec<Bound>,
}

impl Statement {
    /// The parameters that say which rows are meant: not those of the generation and its freshness, which come first.
    pub fn own_parameters(&self) -> &[Bound] {
        self.parameters.get(FRESH_PARAMETERS..).unwrap_or_default()
    }
}

/// A bind parameter in text format.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The column that the value is compared with.
    pub column: String,
    /// The type's oid.
    pub oid: u32,
    /// The value.
    pub text: Option<String>,
}

/// Where rows are read from.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The generation, whose checkpoint says how fresh the rows are.
    pub generation: i64,
    /// Whether readers see it, or only those who ask for the past.
    pub standing: Standing,
    /// The schema of the generation's tables.
    pub schema: &'a str,
    /// Bytes of rows beyond which none are returned.
    pub answer_bytes: u64,
}

/// What an answer shows besides which rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How they are written.
    pub lines: Lines,
    /// How all of them are counted, pages aside.
    pub count: Option<Count>,
}

/// How many parameters [`fresh_parameters`] are.
const FRESH_PARAMETERS: usize = 2;

const INT8: u32 = 20;
const TEXT: u32 = 25;

/// Dead letters are counted up to this number, since every answer counts them.
pub const MAX_DEAD_LETTERS: i64 = 1_000;

/// How fresh a read model's rows are, and those that are embedded in them: position, revision, dead letters, and the
/// positions of the first of those. The first two parameters are the generation and the read model's name.
pub fn freshness(target: Target<'_>, model: &str, embedded: &[&Link<'_>]) -> Statement {
    let mut builder = Builder {
        parameters: fresh_parameters(target, model),
    };
    let Fresh {
        columns,
        from,
        is_there,
    } = builder.fresh(target.standing, embedded);
    Statement {
        text: format!("select {columns} from {from} where {is_there}"),
        parameters: builder.parameters,
    }
}

/// A query's rows as one text, and how fresh they are, from one snapshot. One row beyond the limit is looked for, to know
/// whether there is a next page.
pub fn rows(plan: &Plan<'_>, target: Target<'_>, shape: Shape) -> Statement {
    let mut builder = Builder {
        parameters: fresh_parameters(target, &plan.model.name),
    };
    let Fresh {
        columns,
        from,
        is_there,
    } = builder.fresh(target.standing, &plan.links());
    let page = builder.page(plan, target, shape.lines);
    let total = builder.total(plan, target, shape.count);
    let planned = match plan.finds_one() {
        true => "",
        false => PLANNED_FOR_VALUES,
    };
    let text = format!(
        "select {columns}, page.count, page.bytes, page.body, page.last, {total} as total from {from}
cross join ({page}) as page
where {is_there}{planned}"
    );
    Statement {
        text,
        parameters: builder.parameters,
    }
}

/// PostgreSQL may come to one plan for all values of a statement that it keeps. For a filter that is wrong: few rows match
/// one value, and most of them another. With the read model's name at hand this is nothing; without, it is so
/// expensive that a plan without values is never the cheaper one.
const PLANNED_FOR_VALUES: &str =
    " and ($2 is not null or (select count(*) from generate_series(1, 1000000000000)) > 0)";

/// Subqueries, each about one row of one table: joins of the same would take the planner three times as long.
const FRESHNESS: &str = "(select to_char(pg_postmaster_start_time(), 'YYMMDDHH24MISSUS') || '-' || left(token::text, 8) \
    from gobo.incarnation) as incarnation, c.position";

/// What is said of freshness.
struct Fresh {
    columns: String,
    from: String,
    /// A generation that has lost its standing meanwhile gives no row.
    is_there: &'static str,
}

fn fresh_parameters(target: Target<'_>, model: &str) -> Vec<Bound> {
    let bound = |column: &str, oid, text| Bound {
        column: column.to_owned(),
        oid,
        text,
    };
    vec![
        bound("generation", INT8, Some(target.generation.to_string())),
        bound("read model", TEXT, Some(model.to_owned())),
    ]
}

/// Collects the parameters of a statement while its text is written.
#[derive(Debug)]
pub struct Builder {
    parameters: Vec<Bound>,
}

impl Builder {
    /// What is said of freshness: columns, and where they come from.
    fn fresh(&mut self, standing: Standing, embedded: &[&Link<'_>]) -> Fresh {
        let (revision, is_there) = match standing {
            Standing::Live => (
                "coalesce((select m.revision from gobo.read_models m where m.name = $2), 0)",
                "c.generation = $1 and exists (select from gobo.projections p where p.live = $1)",
            ),
            Standing::Past => (
                "c.revision",
                "c.generation = $1 and exists (select from gobo.generations g where g.id = $1 and g.state = 'done')",
            ),
        };
        let (others, from) = match (standing, embedded) {
            // What is embedded in a generation of the past is of that generation.
            (_, []) | (Standing::Past, _) => (NO_OTHERS, String::new()),
            (Standing::Live, embedded) => (OTHERS, self.others(embedded)),
        };
        Fresh {
            columns: format!(
                "{FRESHNESS}, {revision} as revision, array(select d.position from gobo.dead_letters d \
                 where d.generation = $1 and d.state <> 'discarded' order by d.position limit {MAX_DEAD_LETTERS}) as dead_letters, {others}"
            ),
            from: format!("gobo.checkpoints c {from}"),
            is_there,
        }
    }

    /// One more parameter, named after `what` in messages: the text that stands for it.
    fn bind(&mut self, what: &str, oid: u32, text: String) -> String {
        self.parameters.push(Bound {
            column: what.to_owned(),
            oid,
            text: Some(text),
        });
        format!("${}", self.parameters.len())
    }
}

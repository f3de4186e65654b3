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
    /// The position whose dead letters are to be named.
    pub min_position: Option<i64>,
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
const FRESH_PARAMETERS: usize = 3;

const INT8: u32 = 20;
const TEXT: u32 = 25;

/// Dead letters are counted up to this number, since every answer counts them.
pub const MAX_DEAD_LETTERS: i64 = 1_000;

/// How fresh a read model's rows are, and those that are embedded in them: position, revision, dead letters, and the
/// positions of those up to the one asked for. The first three parameters are the generation, the read model's name and
/// that position.
pub fn freshness(target: Target<'_>, model: &str, embedded: &[&Link<'_>]) -> Statement {
    let mut builder = Builder {
        parameters: fresh_parameters(target, model),
    };
    let (columns, from) = builder.fresh(target.standing, embedded);
    Statement {
        text: format!("select {columns} from {from}"),
        parameters: builder.parameters,
    }
}

/// A query's rows as one text, and how fresh they are, from one snapshot. One row beyond the limit is looked for, to know
/// whether there is a next page.
pub fn rows(plan: &Plan<'_>, target: Target<'_>, shape: Shape) -> Statement {
    let mut builder = Builder {
        parameters: fresh_parameters(target, &plan.model.name),
    };
    let (fresh, from) = builder.fresh(target.standing, &plan.links());
    let page = builder.page(plan, target, shape.lines);
    let total = builder.total(plan, target, shape.count);
    let limit = plan.limit;
    let most = target.answer_bytes;
    let body = shape.lines.body(
        &plan.columns(),
        // Lines beyond are not even put together: what an answer may have at most is what the server needs for it at most.
        &format!("n <= {limit} and upto <= {most}"),
        &mut builder.parameters,
    );
    let text = format!(
        "select {fresh}, page.count, page.bytes, page.body, page.last, {total} as total from {from}
cross join (
  select count(*) as count,
    coalesce(sum(octet_length(line)) filter (where n <= {limit}), 0)::bigint as bytes,
    case when coalesce(sum(octet_length(line)) filter (where n <= {limit}), 0) <= {most}
      then {body} end as body,
    max(place) filter (where n = {limit}) as last
  from (select *, sum(octet_length(line)) over (order by n rows unbounded preceding) as upto from ({page}) as lines) as lines
) as page"
    );
    Statement {
        text,
        parameters: builder.parameters,
    }
}

/// At most 20 dead letters are named.
const FRESHNESS: &str = "(select to_char(pg_postmaster_start_time(), 'YYMMDDHH24MISSUS') || '-' || left(token::text, 8) from gobo.incarnation) as incarnation, c.position, c.revision, dead.count as dead_letters, \
    array(select d.position from gobo.dead_letters d where d.generation = c.generation and d.position <= $3 and d.state <> 'discarded' \
    order by d.position limit 20) as dead_positions";

/// A generation that has lost its standing meanwhile gives no row.
fn fresh_from(standing: Standing) -> String {
    let standing = match standing {
        Standing::Live => {
            "select c.generation, c.position, coalesce(m.revision, 0) as revision from gobo.checkpoints c \
             join gobo.projections p on p.live = c.generation left join gobo.read_models m on m.name = $2"
        }
        Standing::Past => {
            "select c.generation, c.position, c.revision from gobo.checkpoints c \
             join gobo.generations g on g.id = c.generation and g.state = 'done'"
        }
    };
    format!(
        "({standing} where c.generation = $1) as c \
         cross join lateral (select count(*) as count from (select 1 from gobo.dead_letters d \
         where d.generation = c.generation and d.state <> 'discarded' limit {MAX_DEAD_LETTERS}) as letters) as dead"
    )
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
        bound(
            "min_position",
            INT8,
            target.min_position.map(|position| position.to_string()),
        ),
    ]
}

/// Collects the parameters of a statement while its text is written.
#[derive(Debug)]
pub struct Builder {
    parameters: Vec<Bound>,
}

impl Builder {
    /// What is said of freshness: columns, and where they come from.
    fn fresh(&mut self, standing: Standing, embedded: &[&Link<'_>]) -> (String, String) {
        let from = fresh_from(standing);
        match (standing, embedded) {
            // What is embedded in a generation of the past is of that generation.
            (_, []) | (Standing::Past, _) => (format!("{FRESHNESS}, {NO_OTHERS}"), from),
            (Standing::Live, embedded) => {
                let others = self.others(embedded);
                (format!("{FRESHNESS}, {OTHERS}"), format!("{from} {others}"))
            }
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

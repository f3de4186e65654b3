//! How many rows a query has in all, pages aside.

use super::{Builder, Plan, Statement, Target};

/// How rows are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// All of them, one by one.
    Exact,
    /// As many as the planner expects.
    Planned,
    /// One by one up to this number, and beyond it as many as the planner expects.
    Estimated {
        /// The number.
        above: u64,
    },
}

impl Builder {
    /// The number of all rows, as far as it is counted one by one.
    pub(super) fn total(
        &mut self,
        plan: &Plan<'_>,
        target: Target<'_>,
        count: Option<Count>,
    ) -> String {
        match count {
            None => "null::bigint".to_owned(),
            // Not counted here, and still another text: what is kept, and tagged, goes by the text.
            Some(Count::Planned) => "null::int8".to_owned(),
            Some(Count::Exact) => format!("(select count(*) {})", self.all_rows(plan, target)),
            Some(Count::Estimated { above }) => format!(
                "(select count(*) from (select 1 {} limit {}) as counted)",
                self.all_rows(plan, target),
                above.saturating_add(1),
            ),
        }
    }
}

/// Asks the planner how many rows it expects.
pub fn planned(plan: &Plan<'_>, target: Target<'_>) -> Statement {
    let mut builder = Builder {
        parameters: Vec::new(),
    };
    let rows = builder.all_rows(plan, target);
    Statement {
        text: format!("explain (format json) select 1 {rows}"),
        parameters: builder.parameters,
    }
}

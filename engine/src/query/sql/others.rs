//! How fresh embedded rows are: they may be other projections', each with a checkpoint of its own.

use super::{Bound, Builder, MAX_DEAD_LETTERS};
use crate::query::plan::Link;

/// The oids of arrays of bigint, text and bool.
const ARRAYS: [u32; 3] = [1016, 1009, 1000];

/// What an answer without embedded rows says of them.
pub(super) const NO_OTHERS: &str =
    "null::bigint as others_position, null::text as others, 0::bigint as others_dead_letters";

/// What an answer with embedded rows says of them.
pub(super) const OTHERS: &str = "others.position as others_position, others.revisions as others, \
    others.dead_letters as others_dead_letters";

impl Builder {
    /// The least position of the generations that embedded rows come from, and what a tag says of each. A generation that
    /// readers do not see any more gives no row. Positions of another source mean something else, and do not count.
    pub(super) fn others(&mut self, links: &[&Link<'_>]) -> String {
        let list = |parts: Vec<String>| format!("{{{}}}", parts.join(","));
        // Names of read models have small letters, digits and underscores only.
        let lists = [
            list(links.iter().map(|l| l.generation.to_string()).collect()),
            list(links.iter().map(|l| l.model.name.clone()).collect()),
            list(links.iter().map(|l| l.shares_source.to_string()).collect()),
        ];
        let mut places = Vec::new();
        for (oid, text) in ARRAYS.into_iter().zip(lists) {
            self.parameters.push(Bound {
                column: "select".to_owned(),
                oid,
                text: Some(text),
            });
            places.push(format!("${}", self.parameters.len()));
        }
        let [generations, names, shared] = [&places[0], &places[1], &places[2]];
        format!(
            "cross join (
  select min(c.position) filter (where e.shares_source) as position,
    string_agg(c.generation || '.' || coalesce(m.revision, 0), '.' order by e.n) as revisions,
    (select count(*) from (select 1 from gobo.dead_letters d where d.generation = any ({generations}) and d.generation <> $1
      and d.state <> 'discarded' limit {MAX_DEAD_LETTERS}) as letters) as dead_letters
  from unnest({generations}::bigint[], {names}::text[], {shared}::bool[]) with ordinality as e(generation, model, shares_source, n)
  join gobo.checkpoints c on c.generation = e.generation
  join gobo.projections p on p.live = c.generation
  left join gobo.read_models m on m.name = e.model
  having count(*) = {}
) as others",
            links.len()
        )
    }
}

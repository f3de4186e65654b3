//! Questions to a source that are not "what comes next": when, and which events of one stream.

use std::ops::RangeInclusive;

use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

use super::columns::{Only, Path, Selection, failed};
use super::reader::SPAN;
use super::{Limits, Reader, SafeHead, SourceError};
use crate::db::{self, Cause, RawParam};
use crate::event::{Batch, Micros, Position};

/// What PostgreSQL takes as a `timestamptz`, the infinities excepted (its manual, "Date/Time Types").
const TIMES: RangeInclusive<Micros> = -211_813_488_000_000_000..=9_223_371_331_199_999_999;

/// How a stream's events can be found.
enum Way {
    By(Path),
    /// No event can be of this stream.
    Nowhere,
}

impl Reader {
    /// The last position before the first event (in order of position) that was stored after `time`; the safe head when
    /// there is none at or below it.
    ///
    /// Looks at every event before that one, a bounded range at a time.
    pub async fn position_at(&mut self, time: Micros) -> Result<Position, SourceError> {
        let head = self.head().await?;
        let safe = self.safe(&head);
        let (client, table) = self.session(&head).await?;
        let lost = |e: tokio_postgres::Error| failed(&e, table.name());
        let sql = client.prepare(&table.later_sql()).await.map_err(lost)?;
        let time = time.clamp(*TIMES.start(), *TIMES.end());
        let time = RawParam(time.to_be_bytes().to_vec());
        let mut after = 0;
        while after < safe {
            let through = safe.min(after + SPAN);
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                [&after, &through, &time];
            let later = client.query_opt(&sql, &parameters).await.map_err(lost)?;
            if let Some(later) = later {
                return Ok(later.get::<_, Position>(0) - 1);
            }
            after = through;
        }
        Ok(safe)
    }

    /// The events of one stream in `(after, upto]`, all at or below the safe head, in order of position.
    ///
    /// As with [`Reader::next_batch`], `through` tells up to where there are no more; it never falls below `after`, and
    /// an empty batch may have come further. At the end it is the lower of `upto`, `limits.upto` and the safe head. With
    /// an index that begins with the stream only its events are looked at; without one all are, a bounded range at a
    /// time.
    pub async fn stream_batch(
        &mut self,
        stream_id: &str,
        after: Position,
        upto: Position,
        limits: Limits,
    ) -> Result<Batch, SourceError> {
        let head = self.head().await?;
        let upto = upto.min(limits.upto.unwrap_or(Position::MAX));
        let through = self.safe(&head).min(upto);
        if through <= after {
            return Ok(Batch::empty(after));
        }
        let selection = |path: Path| Selection {
            after,
            through: match path {
                Path::Position => through.min(after.saturating_add(SPAN)),
                Path::StreamAndPosition | Path::Stream => through,
            },
            only: Only::Stream(stream_id, path),
        };
        let path = match self.way(&head, &selection, limits.max_events).await? {
            Way::Nowhere => return Ok(Batch::empty(through)),
            Way::By(path) => path,
        };
        let found = self.read(&head, selection(path), &limits).await;
        match found {
            // Sorting may come upon an event that does not fit before its turn, and does not know which one it is.
            Err(SourceError::Refused(_)) if path != Path::Position => {
                self.read(&head, selection(Path::Position), &limits).await
            }
            found => found,
        }
    }

    /// The best way that the server would go: an index is of use only with the right type and collation, on every
    /// partition, so the server itself is asked.
    async fn way<'s>(
        &mut self,
        head: &SafeHead,
        selection: impl Fn(Path) -> Selection<'s>,
        limit: usize,
    ) -> Result<Way, SourceError> {
        let (client, table) = self.session(head).await?;
        for path in [Path::StreamAndPosition, Path::Stream] {
            let sql = table.explain_sql(selection(path), limit.max(1));
            match client.simple_query(&sql).await {
                Ok(plan) if finds_stream(&plan) => return Ok(Way::By(path)),
                Ok(_) => {}
                Err(error) => match db::cause(&error) {
                    Cause::Infrastructure => return Err(failed(&error, table.name())),
                    // The column's type has no such value.
                    Cause::Value => return Ok(Way::Nowhere),
                    // It cannot be compared but as text.
                    Cause::Statement => break,
                },
            }
        }
        Ok(Way::By(Path::Position))
    }
}

fn finds_stream(answer: &[SimpleQueryMessage]) -> bool {
    let mut text = String::new();
    for message in answer {
        if let SimpleQueryMessage::Row(row) = message {
            text.push_str(row.get(0).unwrap_or_default());
        }
    }
    serde_json::from_str(&text).is_ok_and(|plan| every_scan_finds_stream(&plan))
}

/// Whether the table and each of its partitions is entered through an index by an equality: the stream is the only thing
/// that is asked to be equal.
fn every_scan_finds_stream(plan: &Value) -> bool {
    match plan {
        Value::Array(plans) => plans.iter().all(every_scan_finds_stream),
        Value::Object(node) => {
            let condition = node.get("Index Cond").and_then(Value::as_str);
            let enters = !node.contains_key("Relation Name")
                || condition.is_some_and(|condition| condition.contains(" = "));
            let below = ["Plan", "Plans"].iter().filter_map(|key| node.get(*key));
            enters && below.into_iter().all(every_scan_finds_stream)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_an_index_on_the_stream_in_every_scan_finds_it() {
        let by = |condition: &str| json!({"Node Type": "Index Scan", "Relation Name": "events", "Index Cond": condition});
        let stream = by("((stream_id = 'a'::text) AND (position > 5))");
        let position = by("((position > 5) AND (position <= 9))");
        let whole = json!({"Node Type": "Seq Scan", "Relation Name": "events"});
        let sorted = |plans: Value| json!([{"Plan": {"Node Type": "Sort", "Plans": plans}}]);
        for (plan, expected) in [
            (sorted(json!([stream])), true),
            (sorted(json!([stream, stream])), true),
            (sorted(json!([stream, position])), false),
            (sorted(json!([whole])), false),
            (json!([{"Plan": position}]), false),
            (json!("?"), false),
        ] {
            assert_eq!(every_scan_finds_stream(&plan), expected, "{plan}");
        }
    }
}

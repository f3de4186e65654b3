//! The rows at a point in the past: replayed up to there, or copied while they were there.
//!
//! Such a generation is complete at one position and never moves on. It has tables of its own and no names: what is live,
//! its views and its revisions know nothing of it. Neither is begun under the lock of the decisions: a copy takes as long as
//! there are rows, and nothing that others decide is touched.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{IsolationLevel, Transaction};

use super::begin::{enter, make_tables};
use super::{Decision, GenerationError, Generations, Known, Plan, find, tell};
use crate::event::{Micros, Position};
use crate::host::Plugin;
use crate::query::as_of::{AsOf, is_label};
use crate::read_model::schema::SchemaError;
use crate::read_model::writer::copy::copy_generation;
use crate::registry::Purpose;
use crate::source::{self, SourceError};
use crate::sources::Sources;

/// How long a replay waits for events that were just appended to be settled.
const SETTLING: Duration = Duration::from_secs(2);
/// How often a snapshot is taken again that met a decision in between.
const ATTEMPTS: u32 = 3;
/// The longest life of a replay that has an end, in hours.
const MOST_HOURS: u32 = 100_000;

/// A replay that is asked for.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Up to where: a position or a time.
    pub until: AsOf,
    /// What it is called.
    pub label: String,
    /// When it is dropped.
    pub expiry: Expiry,
    /// Whether it begins at the first event, whatever there is to start from.
    pub from_scratch: bool,
}

/// When a replay is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// As the configuration says.
    Usual,
    /// After so many hours.
    Hours(u32),
    /// When somebody cancels it.
    Never,
}

/// Where a replay ends.
struct End {
    position: Position,
    time: Option<Micros>,
}

/// What a replay starts from.
struct Base {
    generation: i64,
    position: Position,
    /// For people.
    name: String,
}

impl Generations {
    /// Begins a generation that ends at a point in the past, and is dropped some time later.
    pub async fn replay(
        &self,
        sources: &Sources,
        projection: &str,
        wish: &Replay,
    ) -> Result<Decision, GenerationError> {
        check_label(&wish.label)?;
        let hours = self.hours(wish.expiry)?;
        let known = self.known_now(projection).await?;
        let end = self.end(sources, &known.source, &wish.until).await?;
        let plugin = self.registry.load_stored(known.hash).await?;
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        unhurried(&transaction).await?;
        let base = match wish.from_scratch {
            true => None,
            false => base(&transaction, projection, &known, end.position).await?,
        };
        let plan = Plan {
            purpose: Purpose::Replay,
            bulk: base.is_none(),
            until: Some(end.position),
            until_time: end.time,
            label: Some(&wish.label),
            hours,
            ..Plan::new(
                projection,
                &known.source,
                &plugin,
                "an operator asked for the rows at a point in the past",
            )
        };
        let models = &plugin.descriptor.read_models;
        let generation = enter(&transaction, &plan)
            .await
            .map_err(taken(&wish.label))?;
        match &base {
            None => make_tables(&transaction, generation, &plan).await?,
            Some(base) => {
                copy_generation(&transaction, base.generation, generation, models, false)
                    .await
                    .map_err(gone(base))?;
            }
        }
        tell(&*transaction).await?;
        transaction.commit().await?;
        drop(client);
        self.registry.look_again().await;
        Ok(Decision {
            projection: projection.to_owned(),
            outcome: "replaying",
            generation,
            detail: describe(generation, &end, base.as_ref(), wish, hours),
        })
    }

    /// Copies the live generation as it is at this moment, to be kept until somebody cancels it.
    pub async fn snapshot(
        &self,
        projection: &str,
        label: Option<&str>,
    ) -> Result<Decision, GenerationError> {
        label.map_or(Ok(()), check_label)?;
        let mut attempt = 1;
        loop {
            match self.try_snapshot(projection, label).await {
                Err(error) if is_conflict(&error) && attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    async fn try_snapshot(
        &self,
        projection: &str,
        label: Option<&str>,
    ) -> Result<Decision, GenerationError> {
        let plugin = self
            .registry
            .load_stored(self.known_now(projection).await?.hash)
            .await?;
        let mut client = self.pool.get().await?;
        // One moment for the checkpoint and all rows. Nobody's commit waits for it, and it waits for nobody's.
        let building = client.build_transaction();
        let transaction = building
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()
            .await?;
        unhurried(&transaction).await?;
        let known = find(&transaction, projection)
            .await?
            .filter(|known| known.hash == plugin.hash)
            .ok_or_else(|| changed(projection))?;
        let (generation, position) =
            copy_live(&transaction, projection, &known, &plugin, label).await?;
        tell(&*transaction).await?;
        transaction.commit().await?;
        drop(client);
        self.registry.look_again().await;
        let called = label.map_or(String::new(), |label| format!(" (\"{label}\")"));
        Ok(Decision {
            projection: projection.to_owned(),
            outcome: "snapshot",
            generation,
            detail: format!(
                "generation {generation}{called} holds the rows at position {position}; it is kept until \
                 `gobo cancel {projection} --generation {generation}`"
            ),
        })
    }

    pub(super) async fn known_now(&self, projection: &str) -> Result<Known, GenerationError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let known = find(&transaction, projection).await?;
        known.ok_or_else(|| GenerationError::NoProjection(projection.to_owned()))
    }

    fn hours(&self, expiry: Expiry) -> Result<Option<i32>, GenerationError> {
        let hours = match expiry {
            Expiry::Usual => self.config.generations.replay_hours,
            Expiry::Hours(hours) if (1..=MOST_HOURS).contains(&hours) => hours,
            Expiry::Hours(_) => {
                return Err(GenerationError::Invalid(format!(
                    "a replay expires after 1 to {MOST_HOURS} hours, or never"
                )));
            }
            Expiry::Never => return Ok(None),
        };
        Ok(i32::try_from(hours).ok())
    }

    /// The position, at which everything has to be settled.
    async fn end(
        &self,
        sources: &Sources,
        source: &str,
        until: &AsOf,
    ) -> Result<End, GenerationError> {
        match until {
            AsOf::Label(label) => Err(GenerationError::Invalid(format!(
                "\"{label}\" is no position and no time: write 1234, or 2026-01-31T12:30:00Z with its offset from UTC"
            ))),
            AsOf::Position(position) => {
                self.settled(sources, source, *position).await?;
                Ok(End {
                    position: *position,
                    time: None,
                })
            }
            AsOf::Time(time, text) => {
                if self.is_future(*time).await? {
                    return Err(GenerationError::Conflict(format!(
                        "{text} lies in the future: what will be there by then is not known"
                    )));
                }
                Ok(End {
                    position: sources.position_at(source, *time).await?,
                    time: Some(*time),
                })
            }
        }
    }

    async fn settled(
        &self,
        sources: &Sources,
        name: &str,
        position: Position,
    ) -> Result<(), GenerationError> {
        let Some(source) = sources.get(name) else {
            return Err(GenerationError::Conflict(format!(
                "the source \"{name}\" is not configured on this node"
            )));
        };
        source.poke();
        let reaching = source.wait_past(position - 1);
        if let Ok(reached) = tokio::time::timeout(SETTLING, reaching).await {
            return Ok(reached?);
        }
        let head = source.safe_head().borrow().clone();
        if let source::State::Unreachable(why) = head.state {
            return Err(GenerationError::Source(why));
        }
        let why = match head.head >= position {
            true => "writers that began before it are not done yet",
            false => "no event has that position yet",
        };
        Err(GenerationError::Conflict(format!(
            "position {position} lies beyond {}, up to which events are settled: {why}",
            head.position
        )))
    }

    async fn is_future(&self, time: Micros) -> Result<bool, GenerationError> {
        let client = self.pool.get().await?;
        let row = client
            .query_one(
                "select $1::bigint > extract(epoch from clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000",
                &[&time],
            )
            .await?;
        Ok(row.get(0))
    }
}

/// The rows of the live generation, as this transaction sees them, as a generation of their own.
async fn copy_live(
    transaction: &Transaction<'_>,
    projection: &str,
    known: &Known,
    plugin: &Plugin,
    label: Option<&str>,
) -> Result<(i64, Position), GenerationError> {
    let row = transaction
        .query_one(include_str!("present.sql"), &[&known.live])
        .await?;
    let (position, was_swapped): (Position, bool) = (row.get(0), row.get(1));
    let plan = Plan {
        purpose: Purpose::Snapshot,
        bulk: false,
        until: Some(position),
        label,
        ..Plan::new(
            projection,
            &known.source,
            plugin,
            "an operator asked for a copy of the live rows",
        )
    };
    let entered = enter(transaction, &plan).await;
    let generation = entered.map_err(taken(label.unwrap_or_default()))?;
    let models = &plugin.descriptor.read_models;
    let copied = copy_generation(transaction, known.live, generation, models, was_swapped).await;
    copied.map_err(|error| match &error {
        SchemaError::Database(cause) if is_missing(cause) => changed(projection),
        _ => error.into(),
    })?;
    transaction
        .execute(
            "update gobo.generations set state = 'done' where id = $1",
            &[&generation],
        )
        .await?;
    Ok((generation, position))
}

/// As long as it takes, unlike other requests; and to be found after a crash once it is told. The lock, taken before the
/// transaction has a snapshot, keeps redactions out: a copy must not hold what was taken back while it was made. It lets one
/// copy go on at a time.
async fn unhurried(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction
        .batch_execute(
            "set local statement_timeout = 0; set local synchronous_commit = on; \
             lock table gobo.redactions in share row exclusive mode",
        )
        .await
}

async fn base(
    transaction: &Transaction<'_>,
    projection: &str,
    known: &Known,
    until: Position,
) -> Result<Option<Base>, tokio_postgres::Error> {
    let hash = known.hash.0.as_slice();
    let row = transaction
        .query_opt(
            include_str!("base.sql"),
            &[&projection, &hash, &known.source, &until],
        )
        .await?;
    Ok(row.map(|row| {
        let (generation, purpose): (i64, &str) = (row.get(0), row.get(1));
        let label = row.get::<_, Option<&str>>(2);
        let label = label.map_or(String::new(), |label| format!("\"{label}\", "));
        let position = row.get(3);
        Base {
            generation,
            position,
            name: format!("{purpose} {label}generation {generation}, at position {position}"),
        }
    }))
}

fn describe(
    generation: i64,
    end: &End,
    base: Option<&Base>,
    wish: &Replay,
    hours: Option<i32>,
) -> String {
    let start = match base {
        None => "from the first event".to_owned(),
        Some(base) if base.position == end.position => format!("as a copy of {}", base.name),
        Some(base) => format!("from {}", base.name),
    };
    let time = match &wish.until {
        AsOf::Time(_, text) => format!(", which is where the events were at {text}"),
        AsOf::Position(_) | AsOf::Label(_) => String::new(),
    };
    let expiry = match hours {
        Some(hours) => format!("it expires after {hours} h"),
        None => "it does not expire".to_owned(),
    };
    format!(
        "generation {generation} is filled {start}, up to position {}{time}; read it with ?as_of={}; {expiry}",
        end.position, wish.label
    )
}

fn check_label(label: &str) -> Result<(), GenerationError> {
    match is_label(label) {
        true => Ok(()),
        false => {
            let shown: String = label.chars().take(80).collect();
            Err(GenerationError::Invalid(format!(
                "\"{shown}\" is no label: a label begins with a letter and has at most 63 of a-z, 0-9, _ and -"
            )))
        }
    }
}

fn taken(label: &str) -> impl Fn(tokio_postgres::Error) -> GenerationError + '_ {
    move |error| match error.code() {
        Some(&SqlState::UNIQUE_VIOLATION) => GenerationError::Conflict(format!(
            "the label \"{label}\" is taken: choose another one, or give up the generation that has it (`gobo cancel --generation`)"
        )),
        _ => error.into(),
    }
}

fn gone(base: &Base) -> impl Fn(SchemaError) -> GenerationError + '_ {
    |error| match &error {
        SchemaError::Database(cause) if is_missing(cause) => GenerationError::Conflict(format!(
            "{}, from which the replay was to start, has just been dropped: ask again",
            base.name
        )),
        _ => error.into(),
    }
}

fn changed(projection: &str) -> GenerationError {
    GenerationError::Conflict(format!(
        "what is live of projection \"{projection}\" has just changed: ask again"
    ))
}

fn is_missing(error: &tokio_postgres::Error) -> bool {
    [&SqlState::UNDEFINED_TABLE, &SqlState::INVALID_SCHEMA_NAME]
        .iter()
        .any(|code| error.code() == Some(code))
}

fn is_conflict(error: &GenerationError) -> bool {
    let (GenerationError::Database(cause) | GenerationError::Schema(SchemaError::Database(cause))) =
        error
    else {
        return false;
    };
    cause.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

impl From<SourceError> for GenerationError {
    fn from(error: SourceError) -> Self {
        GenerationError::Source(error.to_string())
    }
}

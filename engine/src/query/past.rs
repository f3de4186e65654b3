//! Which generations there are of the past: the database decides, at every question anew, because they come and go.

use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::Failure;
use super::as_of::AsOf;
use crate::db::{Keep, Sessions};
use crate::event::{Micros, Position};

/// The past of a projection.
#[derive(Debug)]
pub struct Past {
    /// The projection.
    pub projection: String,
    /// The present moment, by the database's clock.
    pub now: Micros,
    /// Its generations at points in the past: complete ones first, then newer ones.
    pub generations: Vec<Candidate>,
}

/// A generation at a point in the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub generation: i64,
    /// Whether it is there.
    pub is_done: bool,
    /// Whether it has stopped at an event that it cannot process.
    pub has_stopped: bool,
    /// Where it is.
    pub position: Position,
    /// Where it ends.
    pub until: Position,
    /// The time that it was asked for as.
    pub until_time: Option<Micros>,
    /// What it is called.
    pub label: Option<String>,
}

impl Candidate {
    /// Whether it was made for this point. A time may be another one's position, which only the source can tell.
    pub fn is_at(&self, as_of: &AsOf) -> bool {
        match as_of {
            AsOf::Position(position) => self.until == *position,
            AsOf::Time(time, _) => self.until_time == Some(*time),
            AsOf::Label(label) => self.label.as_ref() == Some(label),
        }
    }
}

/// Looks the past up of the projection that has, or had, a read model; `None` if nobody has.
pub async fn past(sessions: &Sessions, model: &str) -> Result<Option<Past>, Failure> {
    let text = include_str!("past.sql");
    let rows = sessions
        .rows(text, &[Type::TEXT], &[&model], Keep::Nothing)
        .await?
        .map_err(Failure::Database)?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let read = || -> Result<Past, Error> {
        Ok(Past {
            projection: first.try_get("projection")?,
            now: first.try_get("now")?,
            generations: rows
                .iter()
                .filter_map(|row| candidate(row).transpose())
                .collect::<Result<_, _>>()?,
        })
    };
    read().map(Some).map_err(Failure::Database)
}

fn candidate(row: &Row) -> Result<Option<Candidate>, Error> {
    let (generation, until) = (row.try_get("generation")?, row.try_get("until")?);
    let (Some(generation), Some(until)) = (generation, until) else {
        return Ok(None);
    };
    Ok(Some(Candidate {
        generation,
        is_done: row.try_get("is_done")?,
        has_stopped: row.try_get("has_stopped")?,
        position: row.try_get("position")?,
        until,
        until_time: row.try_get("until_time")?,
        label: row.try_get("label")?,
    }))
}

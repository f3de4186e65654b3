//! Keys at which there was no row while a stream waited: a late retry that touches one of them comes out otherwise than a
//! replay would.

use sha2::{Digest, Sha256};
use tokio_postgres::Statement;

use super::{Checkpoint, Params, Target, Writer};
use crate::event::Position;
use crate::read_model::ReadModel;

/// Keys that are kept per generation; from there on it counts as diverged.
const MOST: i32 = 100_000;

/// A key of a read model that is declared per stream, at which there is no row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AbsentKey {
    /// Index of the read model.
    pub model: usize,
    /// sha256 of the key's fields: a key that is only asked for may be longer than an index takes.
    digest: [u8; 32],
}

impl AbsentKey {
    /// The key with these fields.
    pub fn new(model: usize, key: &[u8]) -> Self {
        Self {
            model,
            digest: Sha256::digest(key).into(),
        }
    }
}

impl Writer {
    /// The first of the keys that a retried event of `stream` wrote (`true`) or found no row at, at which later events of
    /// other streams have found or left none already. Gives its place in `touched`.
    pub async fn absent_hit(
        &self,
        stream: &str,
        position: Position,
        touched: &[(AbsentKey, bool)],
    ) -> Result<Option<usize>, tokio_postgres::Error> {
        if touched.is_empty() {
            return Ok(None);
        }
        let keys = touched.iter().map(|(key, _)| key);
        let models: Vec<&str> = (keys.clone().map(|key| &self.models[key.model]))
            .map(|model| model.name.as_str())
            .collect();
        let digests: Vec<&[u8]> = keys.map(|key| &key.digest[..]).collect();
        let written: Vec<bool> = touched.iter().map(|(_, written)| *written).collect();
        let hit = self
            .client
            .query_opt(
                include_str!("../sql/absent_hit.sql"),
                &[
                    &self.target.generation,
                    &models,
                    &digests,
                    &written,
                    &stream,
                    &position,
                ],
            )
            .await?;
        // Ordinality counts from 1.
        hit.map(|row| Ok(row.try_get::<_, i64>(0)? as usize - 1))
            .transpose()
    }

    /// Forgets all of them: no stream waits any more.
    pub async fn forget_absent(&self, from: &Checkpoint) -> Result<(), tokio_postgres::Error> {
        let sql = include_str!("../sql/forget_absent_keys.sql");
        self.client
            .execute(sql, &[&self.target.generation, &from.epoch])
            .await?;
        Ok(())
    }
}

/// The keys that one transaction keeps, as parameters.
#[derive(Default)]
pub(super) struct Absences<'a> {
    models: Vec<&'a str>,
    digests: Vec<&'a [u8]>,
    streams: Vec<&'a str>,
    freed: Vec<bool>,
    position: Position,
}

impl<'a> Absences<'a> {
    pub(super) fn of(set: &'a super::ChangeSet, models: &'a [ReadModel]) -> Self {
        let mut absences = Self {
            position: set.absent_at,
            ..Self::default()
        };
        for (key, freed) in &set.absent {
            absences.models.push(&models[key.model].name);
            absences.digests.push(&key.digest);
            absences.streams.push(set.retried.as_deref().unwrap_or(""));
            absences.freed.push(*freed);
        }
        absences
    }

    pub(super) fn push<'s>(
        &'s self,
        sequence: &mut Vec<(&'s Statement, Params<'s>)>,
        statement: &'s Statement,
        target: &'s Target,
    ) {
        if self.models.is_empty() {
            return;
        }
        sequence.push((
            statement,
            vec![
                &target.generation,
                &self.models,
                &self.digests,
                &self.streams,
                &self.freed,
                &MOST,
                &target.projection,
                &self.position,
            ],
        ));
    }
}

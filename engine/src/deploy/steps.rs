//! The steps of a deploy within its transaction: create, swap, begin anew.

use tokio_postgres::Transaction;

use super::tables::Differences;
use super::{Action, DeployError, Deployer, LOCK_WAIT, Mode};
use crate::generations::{
    Known, Plan, begin, begin_beside, cancel_candidate, record, reserve_names,
};
use crate::host::Plugin;
use crate::read_model::schema;

/// What was done, to which generation, and the same in a sentence.
type Step = Result<(Action, i64, String), DeployError>;

impl Deployer {
    /// A new projection is live at once: there is nothing that readers could see instead.
    pub(super) async fn create(&self, transaction: &Transaction<'_>, plugin: &Plugin) -> Step {
        let descriptor = &plugin.descriptor;
        let (name, source) = (&descriptor.name, self.config.source_of(&descriptor.name));
        transaction
            .execute(
                // A removed one of this name may not have been forgotten yet.
                "insert into gobo.projections (name, source) values ($1, $2) \
                 on conflict (name) do update set source = excluded.source, created_at = now() where projections.live is null",
                &[name, &source],
            )
            .await?;
        let generation = begin(
            transaction,
            &Plan {
                bulk: false,
                ..Plan::new(name, source, plugin, "the projection is new")
            },
        )
        .await?;
        transaction
            .execute(
                "update gobo.projections set live = $2 where name = $1",
                &[name, &generation],
            )
            .await?;
        transaction
            .execute(
                "update gobo.generations set state = 'live', promoted_at = now() where id = $1",
                &[&generation],
            )
            .await?;
        let views = &self.config.database.read_schema;
        schema::switch_views(transaction, views, generation, &descriptor.read_models, &[]).await?;
        let detail = format!(
            "projection \"{name}\" is new; generation {generation} begins at the first event of source \"{source}\""
        );
        record(
            transaction,
            name,
            generation,
            "created",
            &plugin.hash,
            None,
            &detail,
        )
        .await?;
        Ok((Action::Created, generation, detail))
    }

    pub(super) async fn unchanged(
        &self,
        transaction: &Transaction<'_>,
        plugin: &Plugin,
        present: &Known,
        mode: Mode,
    ) -> Step {
        let name = &plugin.descriptor.name;
        let mut detail =
            format!("projection \"{name}\" runs these very bytes already; nothing was changed");
        let why = "the bytes of the live generation were deployed again";
        // Whoever previews has not decided anything yet; a rebuild with these very bytes goes on.
        let others = (present.candidate).is_some_and(|(_, candidate)| candidate != plugin.hash);
        if mode != Mode::Preview
            && others
            && let Some(cancelled) = cancel_candidate(transaction, name, why).await?
        {
            detail = format!(
                "projection \"{name}\" runs these very bytes already; generation {cancelled}, which was being filled with others, is cancelled"
            );
        }
        if mode == Mode::Rebuild {
            detail.push_str(&format!("; to compute its rows anew: gobo rebuild {name}"));
        }
        Ok((Action::Unchanged, present.live, detail))
    }

    /// These bytes are being filled into a new generation already.
    pub(super) async fn under_way(
        &self,
        transaction: &Transaction<'_>,
        present: &Known,
        hold: bool,
    ) -> Step {
        let generation = present.candidate.map_or(present.live, |(id, _)| id);
        transaction
            .execute(
                "update gobo.generations set hold = $2, trouble = null where id = $1 and hold <> $2",
                &[&generation, &hold],
            )
            .await?;
        let detail = format!("generation {generation} is being filled with these very bytes");
        Ok((Action::Unchanged, generation, detail))
    }

    pub(super) async fn rebuild(
        &self,
        transaction: &Transaction<'_>,
        plugin: &Plugin,
        present: &Known,
        hold: bool,
        reason: &str,
    ) -> Step {
        let name = &plugin.descriptor.name;
        let position = transaction
            .query_one(
                "select position from gobo.checkpoints where generation = $1",
                &[&present.live],
            )
            .await?
            .get(0);
        let source = self.check_source(name, present, position)?;
        let plan = Plan {
            hold,
            ..Plan::new(name, source, plugin, reason)
        };
        let why = "a newer deploy has replaced it";
        let (generation, detail) = begin_beside(transaction, &plan, present.live, why).await?;
        Ok((Action::Rebuilding, generation, detail))
    }

    /// The checkpoint's row lock makes this a batch boundary: a commit that is under way ends first, and the next one of
    /// the old code fails, because the fence compares the plugin's hash.
    pub(super) async fn swap(
        &self,
        transaction: &Transaction<'_>,
        plugin: &Plugin,
        present: &Known,
        differences: &Differences<'_>,
    ) -> Step {
        let descriptor = &plugin.descriptor;
        let (name, generation) = (&descriptor.name, present.live);
        let why = "a newer deploy goes on in place";
        let cancelled = cancel_candidate(transaction, name, why).await?;
        let row = transaction
            .query_one(
                include_str!("swap.sql"),
                &[&generation, &plugin.hash.0.as_slice()],
            )
            .await?;
        let position: i64 = row.get(0);
        let source = self.check_source(name, present, position)?;
        transaction
            .execute(
                "update gobo.generations set plugin_hash = $2, deployed_at = now(), source = $3 where id = $1",
                &[&generation, &plugin.hash.0.as_slice(), &source],
            )
            .await?;
        transaction
            .execute(
                "update gobo.projections set source = $2 where name = $1 and source <> $2",
                &[name, &source],
            )
            .await?;
        let views = &self.config.database.read_schema;
        let models = &descriptor.read_models;
        if differences.is_empty() {
            schema::comment_tables(transaction, generation, models).await?;
            schema::write_comments(transaction, views, models).await?;
        } else {
            self.add(transaction, plugin, present, differences).await?;
        }
        let mut detail = format!(
            "projection \"{name}\" goes on from position {position} with the new code; rows of earlier events stay as the old code wrote them"
        );
        for added in &differences.added {
            detail.push_str(&format!("; {added}"));
        }
        if source != present.source {
            detail.push_str(&format!(
                "; its source is now \"{source}\" instead of \"{}\"",
                present.source
            ));
        }
        if let Some(cancelled) = cancelled {
            detail.push_str(&format!("; generation {cancelled} is cancelled"));
        }
        let (hash, previous) = (&plugin.hash, Some(&present.hash));
        record(
            transaction,
            name,
            generation,
            "swapped",
            hash,
            previous,
            &detail,
        )
        .await?;
        Ok((Action::Swapped, generation, detail))
    }

    /// Adds to the live tables what the new code needs. Its locks are asked for briefly and again, so that no reader waits behind
    /// them; once it has them, readers wait until its indexes are built.
    async fn add(
        &self,
        transaction: &Transaction<'_>,
        plugin: &Plugin,
        present: &Known,
        differences: &Differences<'_>,
    ) -> Result<(), DeployError> {
        let descriptor = &plugin.descriptor;
        let models = &descriptor.read_models;
        reserve_names(transaction, &descriptor.name, models).await?;
        transaction
            .batch_execute(&format!("set local lock_timeout = '{LOCK_WAIT}'"))
            .await?;
        for (place, addition) in &differences.additions {
            schema::add(transaction, present.live, *place, &models[*place], addition).await?;
        }
        schema::comment_tables(transaction, present.live, models).await?;
        let views = &self.config.database.read_schema;
        schema::switch_views(transaction, views, present.live, models, &[]).await?;
        // The shape is part of what a revision stands for.
        transaction
            .execute(
                include_str!("reshaped.sql"),
                &[&descriptor.name, &present.live],
            )
            .await?;
        Ok(())
    }

    /// The source that the projection is to read. A position of another source means nothing in it.
    fn check_source(
        &self,
        name: &str,
        present: &Known,
        position: i64,
    ) -> Result<&str, DeployError> {
        let source = self.config.source_of(name);
        if source != present.source && position > 0 {
            return Err(DeployError::SourceChanged {
                projection: name.to_owned(),
                from: present.source.clone(),
                to: source.to_owned(),
                position,
            });
        }
        Ok(source)
    }
}

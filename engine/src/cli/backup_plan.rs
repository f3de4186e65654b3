//! `gobo backup-plan`: what a plain dump of this very database and its restore need.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use crate::config::OWN_SOURCE;
use crate::db::{Database, describe};

/// Say what pg_dump and a restore of this database need, with the commands.
#[derive(Debug, Clone, Args)]
pub struct BackupPlanArgs {
    /// The database: the `database.url` of `gobo serve`, or what `gobo dev` prints.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
}

/// What this database has.
struct Found {
    name: String,
    version: String,
    size: String,
    /// Those of the engine and of its views, generations' own excepted.
    schemas: Vec<String>,
    generations: i64,
    owners: Vec<String>,
    granted: Vec<String>,
    unlogged: Vec<String>,
    foreign_sources: Vec<String>,
}

/// Prints the plan.
pub async fn run(args: BackupPlanArgs) -> Result<()> {
    let database = Database::new(&args.database_url)?;
    let client = database
        .connect("backup plan", &[])
        .await
        .map_err(|error| anyhow::anyhow!("the database cannot be reached: {}", describe(&error)))?;
    let row = match client
        .query_one(include_str!("backup_plan.sql"), &[&OWN_SOURCE])
        .await
    {
        Ok(row) => row,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            bail!("database {} has no gobo in it", database.name())
        }
        Err(error) => return Err(error).context("the database cannot be looked at"),
    };
    print!("{}", plan(&Found::read(&row))?);
    Ok(())
}

impl Found {
    fn read(row: &Row) -> Self {
        Self {
            name: row.get("name"),
            version: row.get("version"),
            size: row.get("size"),
            schemas: row.get("schemas"),
            generations: row.get("generations"),
            owners: row.get("owners"),
            granted: row.get("granted"),
            unlogged: row.get("unlogged"),
            foreign_sources: row.get("foreign_sources"),
        }
    }
}

fn plan(found: &Found) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let Found {
        name,
        version,
        size,
        generations,
        ..
    } = found;
    let schemas = found.schemas.join(", ");
    let owners = found.owners.join(", ");
    writeln!(
        text,
        "Backup of database {name} (PostgreSQL {version}, {size})\n"
    )?;
    writeln!(text, "1. What there is")?;
    writeln!(
        text,
        "   schemas {schemas} and the {generations} schemas gobo_g... of the generations; owned by {owners}"
    )?;
    match found.foreign_sources.is_empty() {
        true => writeln!(text, "   events: Gobo's own store, gobo.events")?,
        false => writeln!(
            text,
            "   events: also the sources {}: event tables of other programs in this same database. Dump the whole\n   database, as below, so that events, rows and checkpoints come from one snapshot",
            found.foreign_sources.join(", ")
        )?,
    }
    let exclude: String = (found.unlogged.iter())
        .map(|table| format!(" --exclude-table-data='{table}'"))
        .collect();
    writeln!(text, "\n2. Dump, while everything runs")?;
    writeln!(
        text,
        "   pg_dump --format=custom --file={name}.dump{exclude} \"$DATABASE_URL\""
    )?;
    text.push_str(DUMP);
    writeln!(text, "\n3. Roles")?;
    match found.granted.is_empty() {
        true => writeln!(
            text,
            "   {owners} owns everything, and nothing is granted to others"
        )?,
        false => writeln!(
            text,
            "   {owners} owns everything; {} may read. A dump has grants, but no roles: create those first",
            found.granted.join(", ")
        )?,
    }
    writeln!(
        text,
        "   (pg_dumpall --roles-only has them), or restore with --no-owner --no-privileges as the engine's role\n   and grant again"
    )?;
    writeln!(
        text,
        "\n4. Restore into an empty database, before any engine is started on it"
    )?;
    writeln!(
        text,
        "   createdb --template=template0 --encoding=UTF8 {name}_restored"
    )?;
    writeln!(
        text,
        "   pg_restore --exit-on-error --jobs=4 --dbname={name}_restored {name}.dump"
    )?;
    text.push_str(RESTORE);
    Ok(text)
}

const DUMP: &str = "   One pg_dump is one snapshot: rows, checkpoints and events fit each other, also under load. A dump that took events
   and read models apart would not. Sequences may come out ahead of the snapshot, never behind it: the positions in
   between are holes, which the engine passes as it passes those of transactions that rolled back.
   gobo.incarnation is left out on purpose: it tells this database's revisions apart from those of others. The restored
   one makes a new one, so that no client's ETag of before the restore answers 304 for rows of after it.
   Never with --data-only into another engine's schema, and from the primary: the dump itself may come from a standby.
";

const RESTORE: &str = "   An engine that starts first would make its own schema, and the restore would collide with it.
   Then start `gobo serve` with the new database's address. It goes on from the checkpoints, with the events that were
   stored up to the dump; events appended to the old database since are not there. Clients that waited for a
   position of after the dump (min_position) wait in vain, until new events have taken these positions.
   Leases of the old engine run out within seconds. The plugins are in the dump; the watched folder is not needed.

5. Check it
   gobo status                        every projection runs, and none says that events were restored from an older state
   gobo rebuild NAME --hold, gobo diff NAME LIVE CANDIDATE, gobo cancel NAME     the rows are those of a replay

6. When only the events can be restored
   Rows can be computed from them; nothing else is lost but dead letters' decisions, settings and grants. If the checkpoints are
   ahead of the restored events, or the last event applied is another one, projections refuse to go on, and say so: nothing is
   \"fixed\" silently. Then: gobo remove NAME --yes, gobo deploy FILE for each of them.
   When only the read models are lost: gobo rebuild NAME.

7. What a dump does not have
   The configuration (gobo.toml) with its sources, roles, compiled plugins (made again), and files of failed batches.
   For recovery to any moment instead of to the last dump: base backups with archived WAL. The incarnation is then
   made anew by itself, because an unlogged table is empty after a recovery.
";

//! The schema `gobo`: made and kept current by numbered SQL files that are part of the binary.

use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::db::describe;

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// 1, 2, 3 and so on, without holes.
    pub version: i32,
    /// The file's name.
    pub name: &'static str,
    /// The statements, run in one transaction.
    pub sql: &'static str,
}

/// Every step that this engine knows, in order. A step that has been released is never edited: add another one.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "0001_events.sql",
        sql: include_str!("../migrations/0001_events.sql"),
    },
    Migration {
        version: 2,
        name: "0002_projections.sql",
        sql: include_str!("../migrations/0002_projections.sql"),
    },
    Migration {
        version: 3,
        name: "0003_generations.sql",
        sql: include_str!("../migrations/0003_generations.sql"),
    },
    Migration {
        version: 4,
        name: "0004_per_stream.sql",
        sql: include_str!("../migrations/0004_per_stream.sql"),
    },
    Migration {
        version: 5,
        name: "0005_redaction.sql",
        sql: include_str!("../migrations/0005_redaction.sql"),
    },
    Migration {
        version: 6,
        name: "0006_feed.sql",
        sql: include_str!("../migrations/0006_feed.sql"),
    },
    Migration {
        version: 7,
        name: "0007_access.sql",
        sql: include_str!("../migrations/0007_access.sql"),
    },
];

/// Keeps engines that start at once from migrating at once.
const LOCK: i64 = 0x676f_626f_0001;
const OLDEST_POSTGRES: i32 = 140_000;

/// Why the schema cannot be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server is too old.
    #[error("PostgreSQL {0} is too old: gobo needs version 14 or newer")]
    OldServer(String),
    /// The database cannot hold every text.
    #[error(
        "the database's encoding is {0}, gobo needs UTF8: create one with `create database NAME encoding 'UTF8' template template0`"
    )]
    Encoding(String),
    /// The server only replays another one.
    #[error("this server is a standby: connect to the primary")]
    Standby,
    /// Privileges are missing.
    #[error("role {role:?} may not {what}: run `{fix}` as an administrator")]
    Privilege {
        /// Who is connected.
        role: String,
        /// What is not allowed.
        what: String,
        /// The statement that allows it.
        fix: String,
    },
    /// The schema was made by a newer engine.
    #[error(
        "the database's schema is version {found}, this engine knows {known}: use a newer gobo"
    )]
    Newer {
        /// The database's version.
        found: i32,
        /// The newest one this engine knows.
        known: i32,
    },
    /// A step that the database has already taken looks different in this engine.
    #[error(
        "migration {version} ({name}) differs from the one that was applied to the database: use the gobo that made it, or a newer one"
    )]
    Edited {
        /// Its number.
        version: i32,
        /// Its file.
        name: &'static str,
    },
    /// A step failed; it left nothing behind.
    #[error("migration {version} ({name}) failed: {}", describe(.source))]
    Step {
        /// Its number.
        version: i32,
        /// Its file.
        name: &'static str,
        /// What the server said.
        source: tokio_postgres::Error,
    },
    /// The database did not answer.
    #[error("the schema cannot be checked: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// Brings the schema `gobo` up to date, or says why that is not possible. Engines that start at once wait for each other.
pub async fn migrate(client: &mut Client) -> Result<(), MigrateError> {
    migrate_to(client, MIGRATIONS).await
}

/// Like [`migrate`], as an engine that knows only `migrations`.
pub async fn migrate_to(client: &mut Client, migrations: &[Migration]) -> Result<(), MigrateError> {
    check_server(client).await?;
    client
        .execute("select pg_advisory_lock($1)", &[&LOCK])
        .await?;
    let result = migrate_locked(client, migrations).await;
    // Also released by the end of the session, should this fail.
    let unlocked = client
        .execute("select pg_advisory_unlock($1)", &[&LOCK])
        .await;
    result?;
    unlocked?;
    Ok(())
}

async fn check_server(client: &Client) -> Result<(), MigrateError> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int4, current_setting('server_version'), \
                    current_setting('server_encoding'), pg_is_in_recovery()",
            &[],
        )
        .await?;
    if row.get::<_, i32>(0) < OLDEST_POSTGRES {
        return Err(MigrateError::OldServer(row.get(1)));
    }
    let encoding: String = row.get(2);
    if encoding != "UTF8" {
        return Err(MigrateError::Encoding(encoding));
    }
    if row.get(3) {
        return Err(MigrateError::Standby);
    }
    Ok(())
}

async fn migrate_locked(client: &mut Client, migrations: &[Migration]) -> Result<(), MigrateError> {
    make_ledger(client).await?;
    let applied = client
        .query(
            "select version, checksum from gobo.migrations order by version",
            &[],
        )
        .await?;
    let known = migrations.last().map_or(0, |last| last.version);
    let found = applied.last().map_or(0, |row| row.get(0));
    if found > known {
        return Err(MigrateError::Newer { found, known });
    }
    for migration in migrations {
        let checksum = checksum(migration.sql);
        let earlier = applied
            .iter()
            .find(|row| row.get::<_, i32>(0) == migration.version);
        match earlier {
            None => take_step(client, migration, &checksum).await?,
            Some(row) if row.get::<_, &str>(1) == checksum => {}
            Some(_) => {
                return Err(MigrateError::Edited {
                    version: migration.version,
                    name: migration.name,
                });
            }
        }
    }
    Ok(())
}

async fn take_step(
    client: &mut Client,
    migration: &Migration,
    checksum: &str,
) -> Result<(), MigrateError> {
    let step = async {
        let transaction = client.transaction().await?;
        transaction.batch_execute(migration.sql).await?;
        transaction
            .execute(
                "insert into gobo.migrations (version, name, checksum) values ($1, $2, $3)",
                &[&migration.version, &migration.name, &checksum],
            )
            .await?;
        transaction.commit().await
    };
    step.await.map_err(|source| MigrateError::Step {
        version: migration.version,
        name: migration.name,
        source,
    })?;
    tracing::info!(
        version = migration.version,
        name = migration.name,
        "schema migrated"
    );
    Ok(())
}

/// Creates the schema and the table that says which steps were taken, unless they are there.
async fn make_ledger(client: &mut Client) -> Result<(), MigrateError> {
    let row = client
        .query_one(
            "select current_user::text, quote_ident(current_user), quote_ident(current_database()), \
                    has_database_privilege(current_database(), 'CREATE'), \
                    to_regclass('gobo.migrations') is not null, \
                    (select has_schema_privilege(oid, 'CREATE') from pg_namespace where nspname = 'gobo')",
            &[],
        )
        .await?;
    let (role, quoted, database): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let (may_create_schema, made): (bool, bool) = (row.get(3), row.get(4));
    if made {
        return Ok(());
    }
    match row.get::<_, Option<bool>>(5) {
        None if !may_create_schema => Err(MigrateError::Privilege {
            role,
            what: format!("create schemas in database {database}"),
            fix: format!("grant create on database {database} to {quoted}"),
        }),
        Some(false) => Err(MigrateError::Privilege {
            role,
            what: "create tables in schema gobo".to_owned(),
            fix: format!("alter schema gobo owner to {quoted}"),
        }),
        _ => create_ledger(client)
            .await
            .map_err(|error| match error.code() {
                // The schema may be somebody else's by now.
                Some(&SqlState::INSUFFICIENT_PRIVILEGE) => MigrateError::Privilege {
                    role,
                    what: "create tables in schema gobo".to_owned(),
                    fix: format!("alter schema gobo owner to {quoted}"),
                },
                _ => MigrateError::Database(error),
            }),
    }
}

async fn create_ledger(client: &mut Client) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(
            "create schema if not exists gobo; \
             create table gobo.migrations ( \
                 version int4 primary key, name text not null, checksum text not null, \
                 applied_at timestamptz not null default clock_timestamp())",
        )
        .await?;
    transaction.commit().await
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

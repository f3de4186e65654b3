//! `gobo token`: who may ask the engine.
//!
//! It works on the database directly: the first token has to be there before the engine lets anybody in.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::serve::environment;
use crate::access::tokens::{MOST, NewToken};
use crate::access::{APPEND, READ};
use crate::config::{Config, is_role};
use crate::db::{Database, describe};
use crate::migrate::migrate;
use crate::query::rules::ADMIN;
use crate::registry::tell;

/// Make, list and revoke the tokens with which requests say who they are from.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo token new --name me --role admin
  gobo token new --name shop --role append --expires 90d
  gobo token new --name alice --role read --claim sub=alice --claim 'groups:=[\"a\",\"b\"]'
  gobo token list
  gobo token revoke alice

The engine looks at tokens with [access] tokens = true. Commands and clients send them: GOBO_TOKEN=gobo_.. gobo status,
curl -H \"Authorization: Bearer gobo_..\"")]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
    /// The configuration file of `gobo serve`.
    #[arg(long, env = "GOBO_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The database, instead of the one that `gobo serve` would use with this configuration and environment.
    #[arg(long, value_name = "URL", global = true)]
    database_url: Option<String>,
}

#[derive(Debug, Clone, Subcommand)]
enum TokenCommand {
    New(NewArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make a token. It is printed once and stored nowhere.
#[derive(Debug, Clone, Args)]
struct NewArgs {
    /// Whose it is: unique among the tokens that are in force.
    #[arg(long)]
    name: String,
    /// What it may do: read, append, admin, or a role that the configuration of a read model names. May be given several times.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<String>,
    /// What row rules compare with: NAME=TEXT, or NAME:=JSON. May be given several times.
    #[arg(long = "claim", value_name = "NAME=TEXT")]
    claims: Vec<String>,
    /// When it ends: 90s, 15m, 12h, 30d or 8w from now [default: never].
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
}

/// List tokens. Nothing that is shown can be used in place of one.
#[derive(Debug, Clone, Args)]
struct ListArgs {
    /// Also those that were revoked or have expired.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Revoke a token: at once on every node that hears of it, within seconds on the others.
#[derive(Debug, Clone, Args)]
struct RevokeArgs {
    /// Its id or its name.
    token: String,
}

/// Does what was asked for.
pub async fn run(args: TokenArgs) -> Result<()> {
    let mut client = connect(&args).await?;
    match &args.command {
        TokenCommand::New(new) => make(&mut client, new).await,
        TokenCommand::List(list) => show(&client, list).await,
        TokenCommand::Revoke(revoke) => end(&client, &revoke.token).await,
    }
}

async fn connect(args: &TokenArgs) -> Result<Client> {
    let url = match &args.database_url {
        Some(url) => url.clone(),
        None => {
            Config::read(args.config.as_deref(), environment())?
                .database
                .url
        }
    };
    let database = Database::new(&url)?;
    let mut client = database
        .connect("token", &[])
        .await
        .map_err(|error| anyhow!("the database cannot be reached: {}", describe(&error)))?;
    migrate(&mut client).await?;
    Ok(client)
}

async fn make(client: &mut Client, args: &NewArgs) -> Result<()> {
    for role in &args.roles {
        if !is_role(role) {
            bail!("\"{role}\" is no role: letters, digits and _-.:/, at most 100");
        }
    }
    let name = args.name.trim();
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        bail!("a token's name has 1 to 100 bytes, and no control characters");
    }
    let claims = claims(&args.claims)?;
    let expires = args.expires.as_deref().map(duration).transpose()?;
    let token = NewToken::random().map_err(|error| anyhow!("there is no randomness: {error}"))?;
    let seconds = expires.map(|expires| expires.as_secs_f64());
    let transaction = client.transaction().await?;
    // One at a time, so that the number of tokens is what it is counted to be.
    transaction
        .batch_execute("lock table gobo.tokens in share row exclusive mode")
        .await?;
    // A name is free again when its token has expired.
    transaction
        .execute(
            "update gobo.tokens set revoked_at = expires_at \
             where name = $1 and revoked_at is null and expires_at <= clock_timestamp()",
            &[&name],
        )
        .await?;
    let count: i64 = transaction
        .query_one(
            "select count(*) from gobo.tokens \
             where revoked_at is null and (expires_at is null or expires_at > clock_timestamp())",
            &[],
        )
        .await?
        .get(0);
    if count >= MOST {
        bail!(
            "{MOST} tokens are in force, and more cannot be: every node has them in memory. Revoke some, or let users come with \
             JSON Web Tokens ([access.jwt])"
        );
    }
    let made = transaction
        .query_one(
            "insert into gobo.tokens (id, name, hash, roles, claims, expires_at) \
             values ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6)) \
             returning to_char(expires_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
            &[
                &token.id,
                &name,
                &&token.hash[..],
                &args.roles,
                &Value::from(claims),
                &seconds,
            ],
        )
        .await;
    let made = match made {
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            bail!(
                "there is a token called \"{name}\" already: choose another name, or `gobo token revoke {name}` first"
            )
        }
        Err(error) => bail!("the token cannot be stored: {}", describe(&error)),
        Ok(row) => row,
    };
    tell(&transaction).await?;
    transaction.commit().await?;
    println!("{}", token.text);
    if std::io::stdout().is_terminal() {
        let until = made.get::<_, Option<String>>(0);
        eprintln!(
            "token \"{name}\" ({}) with {}, valid {}. It is not shown again.",
            token.id,
            args.roles.join(", "),
            until.map_or("until it is revoked".to_owned(), |until| format!(
                "until {until}"
            )),
        );
    }
    for role in &args.roles {
        if ![READ, APPEND, ADMIN].contains(&role.as_str()) {
            eprintln!(
                "\"{role}\" is no role of the engine's own: it may read what `readers` of a read model names it for"
            );
        }
    }
    Ok(())
}

/// `NAME=TEXT` and `NAME:=JSON` -> an object.
fn claims(given: &[String]) -> Result<Map<String, Value>> {
    let mut claims = Map::new();
    for claim in given {
        let Some((name, text)) = claim.split_once('=') else {
            bail!("\"{claim}\" does not say what to claim: NAME=TEXT, or NAME:=JSON");
        };
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => {
                let value = serde_json::from_str(text);
                (
                    name,
                    value.with_context(|| format!("claim {name}: \"{text}\" is no JSON"))?,
                )
            }
            None => (name, Value::from(text)),
        };
        if name.is_empty() || claims.insert(name.to_owned(), value).is_some() {
            bail!("claim \"{name}\" is given twice, or has no name");
        }
    }
    Ok(claims)
}

/// A number and a unit: 90s, 15m, 12h, 30d, 8w.
fn duration(text: &str) -> Result<Duration> {
    let refuse = || anyhow!("\"{text}\" is no duration: write 90s, 15m, 12h, 30d or 8w");
    let unit = text.chars().last().ok_or_else(refuse)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(refuse()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| refuse())?;
    if number == 0 {
        return Err(refuse());
    }
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

const LIST: &str = "select id, name, roles, claims, \
        to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as created, \
        to_char(expires_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as expires, \
        case when revoked_at is not null then 'revoked' when expires_at <= clock_timestamp() then 'expired' else 'in force' end as state \
   from gobo.tokens order by created_at, id";

async fn show(client: &Client, args: &ListArgs) -> Result<()> {
    let rows = client.query(LIST, &[]).await?;
    let is_shown = |row: &&Row| args.all || row.get::<_, &str>("state") == "in force";
    let rows: Vec<&Row> = rows.iter().filter(is_shown).collect();
    if args.json {
        let tokens: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "id": row.get::<_, &str>("id"),
                    "name": row.get::<_, &str>("name"),
                    "roles": row.get::<_, Vec<&str>>("roles"),
                    "claims": row.get::<_, Value>("claims"),
                    "created_at": row.get::<_, &str>("created"),
                    "expires_at": row.get::<_, Option<&str>>("expires"),
                    "state": row.get::<_, &str>("state"),
                })
            })
            .collect();
        println!("{:#}", Value::from(tokens));
        return Ok(());
    }
    println!(
        "{:<12}  {:<20}  {:<9}  {:<20}  {:<20}  ROLES, CLAIMS",
        "ID", "NAME", "STATE", "CREATED", "EXPIRES"
    );
    for row in rows {
        let claims: Value = row.get("claims");
        let claims = match claims.as_object() {
            Some(claims) if !claims.is_empty() => format!(" {}", Value::from(claims.clone())),
            _ => String::new(),
        };
        println!(
            "{:<12}  {:<20}  {:<9}  {:<20}  {:<20}  {}{claims}",
            row.get::<_, &str>("id"),
            row.get::<_, &str>("name"),
            row.get::<_, &str>("state"),
            row.get::<_, &str>("created"),
            row.get::<_, Option<&str>>("expires").unwrap_or("never"),
            row.get::<_, Vec<&str>>("roles").join(","),
        );
    }
    Ok(())
}

async fn end(client: &Client, token: &str) -> Result<()> {
    let ended = client
        .query(
            "update gobo.tokens set revoked_at = clock_timestamp() \
             where (id = $1 or name = $1) and revoked_at is null returning id, name",
            &[&token],
        )
        .await?;
    let Some(row) = ended.first() else {
        // Whoever pastes a whole token must not see it again in a log.
        bail!("no token that is in force has this id or name; `gobo token list` shows them");
    };
    // Whoever misses it looks within seconds.
    tell(client).await?;
    println!(
        "revoked \"{}\" ({})",
        row.get::<_, &str>(1),
        row.get::<_, &str>(0)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_texts_unless_they_are_said_to_be_json() {
        let given = ["sub=42", "groups:=[\"a\", 1]", "note=a=b"].map(str::to_owned);
        let expected = json!({"sub": "42", "groups": ["a", 1], "note": "a=b"});
        assert_eq!(Value::from(claims(&given).unwrap()), expected);
        for wrong in [&["sub"][..], &["a:=[", "b=1"], &["a=1", "a=2"], &["=1"]] {
            let wrong: Vec<String> = wrong.iter().map(|text| (*text).to_owned()).collect();
            assert!(claims(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("30d").unwrap(), Duration::from_secs(30 * 86_400));
        for wrong in ["", "30", "0d", "-1d", "d", "1y", "1é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

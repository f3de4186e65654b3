//! `gobo-baseline DATABASE_URL`: the orders of `plugins/orders` by handlers as one would write them by hand (axum, a pool,
//! prepared statements, JSON made by PostgreSQL), once with tokio-postgres and once with sqlx, and an answer that never
//! changes. `cargo xtask bench` compares with them.

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;
use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

/// As many sessions as `database.api_connections` are by default.
const SESSIONS: u32 = 16;

const ROW: &str = "select row_to_json(r)::text from (select order_id, user_id, symbol, side, status, price, quantity, \
    filled, notional, average_price, created_at, updated_at from read.orders where order_id = $1) r";

const PAGE: &str = "select coalesce(json_agg(r), '[]')::text from (select order_id, user_id, symbol, side, status, price, \
    quantity, filled, notional, average_price, created_at, updated_at from read.orders where symbol = $1 \
    order by order_id limit 50) r";

/// About as long as an order.
const STATIC: &str = r#"{"order_id":"o-1-0-000001","user_id":"user-17","symbol":"BTC-EUR","side":"buy","status":"filled","price":61420.50,"quantity":1.25,"filled":1.25,"notional":76775.6250,"average_price":61420.50000000,"created_at":"2026-01-01T00:00:00+00:00","updated_at":"2026-01-01T00:00:01+00:00"}"#;

#[derive(Clone)]
struct Pools {
    tokio_postgres: Pool,
    sqlx: PgPool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args()
        .nth(1)
        .context("say where the database is")?;
    let settings = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let database: Config = url.parse()?;
    let options = options(&database)?;
    let manager = Manager::from_config(database, NoTls, settings);
    let pools = Pools {
        tokio_postgres: Pool::builder(manager)
            .max_size(usize::try_from(SESSIONS)?)
            .build()?,
        sqlx: PgPoolOptions::new()
            .max_connections(SESSIONS)
            .test_before_acquire(false)
            .connect_lazy_with(options),
    };
    let router = Router::new()
        .route("/static", get(async || json(STATIC.to_owned())))
        .route("/tokio-postgres/orders/{order}", get(order))
        .route("/tokio-postgres/symbols/{symbol}", get(symbol))
        .route("/sqlx/orders/{order}", get(order_by_sqlx))
        .route("/sqlx/symbols/{symbol}", get(symbol_by_sqlx))
        .with_state(pools);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// The same database as sqlx wants to know it: it does not read an address whose host is a folder.
fn options(database: &Config) -> Result<PgConnectOptions> {
    let mut options = PgConnectOptions::new()
        .username(database.get_user().context("no user")?)
        .database(database.get_dbname().context("no database")?)
        .port(*database.get_ports().first().context("no port")?);
    if let Some(password) = database.get_password() {
        options = options.password(str::from_utf8(password)?);
    }
    match database.get_hosts() {
        [Host::Unix(folder)] => Ok(options.socket(folder)),
        [Host::Tcp(host)] => Ok(options.host(host)),
        hosts => bail!("one host is needed: {hosts:?}"),
    }
}

async fn order(State(pools): State<Pools>, Path(order): Path<String>) -> Response {
    answer(ask(&pools.tokio_postgres, ROW, &order).await)
}

async fn symbol(State(pools): State<Pools>, Path(symbol): Path<String>) -> Response {
    answer(ask(&pools.tokio_postgres, PAGE, &symbol).await)
}

async fn order_by_sqlx(State(pools): State<Pools>, Path(order): Path<String>) -> Response {
    answer(ask_by_sqlx(&pools.sqlx, ROW, &order).await)
}

async fn symbol_by_sqlx(State(pools): State<Pools>, Path(symbol): Path<String>) -> Response {
    answer(ask_by_sqlx(&pools.sqlx, PAGE, &symbol).await)
}

async fn ask(pool: &Pool, sql: &str, value: &str) -> Result<Option<String>> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_opt(&statement, &[&value]).await?;
    Ok(row.map(|row| row.get(0)))
}

async fn ask_by_sqlx(pool: &PgPool, sql: &'static str, value: &str) -> Result<Option<String>> {
    let row = sqlx::query_scalar(sql).bind(value);
    Ok(row.fetch_optional(pool).await?)
}

fn answer(found: Result<Option<String>>) -> Response {
    match found {
        Ok(Some(text)) => json(text),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

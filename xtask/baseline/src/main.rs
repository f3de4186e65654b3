//! `gobo-baseline DATABASE_URL`: the orders of `plugins/orders` by handlers as one would write them by hand (axum, a pool,
//! prepared statements, JSON made by PostgreSQL), and an answer that never changes. `cargo xtask bench` compares with both.

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use tokio::net::TcpListener;
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

/// As many sessions as `database.api_connections` are by default.
const SESSIONS: usize = 16;

const ROW: &str = "select row_to_json(r)::text from (select order_id, user_id, symbol, side, status, price, quantity, \
    filled, notional, average_price, created_at, updated_at from read.orders where order_id = $1) r";

const PAGE: &str = "select coalesce(json_agg(r), '[]')::text from (select order_id, user_id, symbol, side, status, price, \
    quantity, filled, notional, average_price, created_at, updated_at from read.orders where symbol = $1 \
    order by order_id limit 50) r";

/// About as long as an order.
const STATIC: &str = r#"{"order_id":"o-1-0-000001","user_id":"user-17","symbol":"BTC-EUR","side":"buy","status":"filled","price":61420.50,"quantity":1.25,"filled":1.25,"notional":76775.6250,"average_price":61420.50000000,"created_at":"2026-01-01T00:00:00+00:00","updated_at":"2026-01-01T00:00:01+00:00"}"#;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args()
        .nth(1)
        .context("say where the database is")?;
    let settings = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(url.parse()?, NoTls, settings);
    let pool = Pool::builder(manager).max_size(SESSIONS).build()?;
    let router = Router::new()
        .route("/static", get(async || json(STATIC.to_owned())))
        .route("/orders/{order}", get(order))
        .route("/symbols/{symbol}", get(symbol))
        .with_state(pool);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

async fn order(State(pool): State<Pool>, Path(order): Path<String>) -> Response {
    answer(&pool, ROW, &order).await
}

async fn symbol(State(pool): State<Pool>, Path(symbol): Path<String>) -> Response {
    answer(&pool, PAGE, &symbol).await
}

async fn answer(pool: &Pool, sql: &str, value: &(dyn ToSql + Sync)) -> Response {
    match ask(pool, sql, value).await {
        Ok(Some(text)) => json(text),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ask(
    pool: &Pool,
    sql: &str,
    value: &(dyn ToSql + Sync),
) -> Result<Option<String>, PoolError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_opt(&statement, &[value]).await?;
    Ok(row.map(|row| row.get(0)))
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

//! Composes everything; starts and stops the services.

mod bounds;
mod publishing;
mod readable;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use self::bounds::Bounds;
use crate::access::{self, Access};
use crate::api::admin::Admin;
use crate::api::health::{Health, Stage};
use crate::api::openapi::Described;
use crate::api::read::{Live, Reader};
use crate::api::streams::{Projections, Streams};
use crate::api::{Front, Rooms, server};
use crate::cache::Cache;
use crate::config::Config;
use crate::db::{Database, Sessions, describe, describe_pool, is_infrastructure};
use crate::deploy::Deployer;
use crate::deploy::watch::Watcher;
use crate::failure::Folder;
use crate::feed;
use crate::generations::Generations;
use crate::generations::compare::Comparer;
use crate::host::Host;
use crate::migrate::{self, MigrateError};
use crate::ownership::{Activity, Node, Ownership};
use crate::progress::Progress;
use crate::query;
use crate::query::board::{Board, Looks};
use crate::redis::{Redis, Unusable};
use crate::registry::Registry;
use crate::shutdown::Shutdown;
use crate::sources::Sources;
use crate::store::Store;

/// How long services may take to finish what is in flight once the end was asked for.
const GRACE: Duration = Duration::from_secs(20);
/// Sessions that read what commits changed, for those who begin or come back.
const FEED_SESSIONS: usize = 4;
/// Sessions that read it for all who follow, one of which may wait for the disk.
const TOPIC_SESSIONS: usize = 2;
/// The longest pause between two attempts to reach the database at the start.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why the engine does not run. The text names the cause and the fix.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}{}", bind_hint(.address, .source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The database's address is of no use.
    #[error("database.url: {0}")]
    Database(#[from] crate::db::Error),
    /// Redis' address is of no use.
    #[error("redis.url: {0}")]
    Redis(#[from] Unusable),
    /// The database refuses us.
    #[error("the database cannot be used: {0}")]
    Refused(String),
    /// The schema cannot be brought up to date.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// Access control has no usable keys.
    #[error(transparent)]
    Access(#[from] access::Unusable),
    /// Plugins cannot be run on this machine.
    #[error("plugins cannot be run: {0}")]
    Host(String),
    /// Something that never ends has ended.
    #[error("service {0} ended unexpectedly; the log says more")]
    Service(String),
}

fn bind_hint(address: &SocketAddr, source: &std::io::Error) -> String {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            ": another process, maybe another gobo, uses port {port}. End it, or choose another port with listen = \"{ip}:{other}\" \
             (GOBO_LISTEN, --listen); port 0 takes a free one",
            port = address.port(),
            ip = address.ip(),
            other = address.port().checked_add(1).unwrap_or(7171),
        ),
        _ => String::new(),
    }
}

/// Takes the address that HTTP will be served on.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })
}

/// What a command may use of the engine that it runs.
pub struct Tools {
    /// Deploys plugins.
    pub deployer: Arc<Deployer>,
    /// Says what is deployed.
    pub registry: Registry,
}

/// Runs the engine until shutdown. Says `listening on http://ADDRESS` on standard output when it is ready, and hands its
/// tools to `opened`.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    mut shutdown: Shutdown,
    opened: impl FnOnce(Tools),
) -> Result<(), ServeError> {
    let address = listener.local_addr();
    let config = Arc::new(config);
    let bounds = Bounds::of(&config);
    let database = Database::new(&config.database.url)?;
    let control = database.pool(
        "control",
        config.database.control_connections,
        &bounded(&config.api.request_timeout_ms.to_string()),
    );
    let activity = Activity::default();
    let access = Access::new(&config, control.clone())?;
    let redis = config.redis.settings();
    let redis = redis.as_ref().map(Redis::new).transpose()?;
    let health = Arc::new(Health::new(
        control.clone(),
        activity.clone(),
        redis.clone(),
        access.clone(),
    ));
    let front = Front::new(&config, access.clone(), health.clone());
    let server: JoinHandle<()> = tokio::spawn(server::serve(
        listener,
        front.router(),
        bounds.connections,
        shutdown.clone(),
    ));
    let for_services = shutdown.clone();
    let outside = Outside {
        bounds,
        database,
        control,
        access,
        redis,
    };
    let starting = start(config, outside, activity, &health, &front, &for_services);
    let mut services = tokio::select! {
        () = shutdown.requested() => JoinSet::new(),
        started = starting => {
            let (services, tools) = started?;
            health.reached(Stage::Running);
            if let Ok(address) = address {
                println!("listening on http://{address}");
                tracing::info!("the console is at http://{address}/console");
            }
            opened(tools);
            services
        }
    };
    let ended = tokio::select! {
        () = shutdown.requested() => None,
        Some(ended) = services.join_next() => Some(ended),
    };
    // At the shutdown, services end as they should, some of them before this is looked at.
    if let Some(ended) = ended.filter(|_| !shutdown.is_requested()) {
        // Nothing is lost by ending: whoever supervises the process starts it again, and it goes on from the checkpoints.
        let name = ended.map_or_else(|error| format!("({error})"), str::to_owned);
        return Err(ServeError::Service(name));
    }
    health.reached(Stage::Stopping);
    tracing::info!("stopping");
    let finishing = async { while services.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finishing).await.is_err() {
        tracing::warn!(
            "some services did not end in time; their work goes on from the last commit"
        );
    }
    // Ends by itself, in bounded time.
    let _ = server.await;
    Ok(())
}

/// What is reached over connections.
struct Outside {
    bounds: Bounds,
    database: Database,
    control: Pool,
    access: Access,
    redis: Option<Redis>,
}

/// What everything else is made from.
struct Parts {
    config: Arc<Config>,
    bounds: Bounds,
    database: Database,
    control: Pool,
    access: Access,
    sources: Sources,
    registry: Registry,
    deployer: Arc<Deployer>,
    generations: Generations,
    progress: Progress,
    activity: Activity,
    redis: Option<Redis>,
    cache: Cache,
}

/// Brings everything up, in the order in which one thing needs the other. Services give their name when they end.
async fn start(
    config: Arc<Config>,
    outside: Outside,
    activity: Activity,
    health: &Health,
    front: &Front,
    shutdown: &Shutdown,
) -> Result<(JoinSet<&'static str>, Tools), ServeError> {
    let Outside {
        bounds,
        database,
        control,
        access,
        redis,
    } = outside;
    migrate_when_there(&database).await?;
    health.reached(Stage::Loading);
    let host = Host::new(config.plugin_limits(), config.cache_dir()).map_err(ServeError::Host)?;
    let registry = Registry::new(control.clone(), host);
    while let Err(error) = registry.refresh_all().await {
        let error = describe_pool(&error);
        tracing::warn!(error, "what is deployed cannot be read yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    while let Err(error) = access.load().await {
        tracing::warn!(error, "tokens cannot be read yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let parts = Parts {
        access,
        bounds,
        sources: Sources::start(&database, &config),
        deployer: Arc::new(Deployer::new(
            control.clone(),
            registry.clone(),
            config.clone(),
        )),
        generations: Generations::new(control.clone(), registry.clone(), config.clone()),
        progress: Progress::new(),
        activity,
        cache: Cache::new(config.cache.settings(), redis.clone(), database.name()),
        redis,
        config,
        database,
        control,
        registry,
    };
    let mut services = JoinSet::new();
    let readable = parts.start_services(&mut services, shutdown).await;
    let published = parts.start_publishing(&mut services, shutdown);
    let rooms = parts.rooms(readable, published, shutdown).await;
    front.open(crate::api::router(&parts.config, rooms));
    let tools = Tools {
        deployer: parts.deployer,
        registry: parts.registry,
    };
    Ok((services, tools))
}

impl Parts {
    /// Starts what runs in the background, and gives the read models as they are published.
    async fn start_services(
        &self,
        services: &mut JoinSet<&'static str>,
        shutdown: &Shutdown,
    ) -> query::catalog::Catalog {
        let (models, refresh) = (watch::Sender::default(), Arc::new(Notify::new()));
        let catalog = query::catalog::Catalog::new(models.subscribe(), refresh.clone());
        let (sources, published) = (self.sources.clone(), models.clone());
        let publish = move |catalog: &_| readable::publish(catalog, &sources, &published);
        self.registry.publish(publish).await;
        let judging = readable::judge(
            self.access.rules().clone(),
            models.subscribe(),
            shutdown.clone(),
        );
        services.spawn(named("row rules", judging));
        let looking = readable::run(self.registry.clone(), refresh, shutdown.clone());
        services.spawn(named("read models", looking));
        let forgetting = self.cache.clone().run(catalog.clone(), shutdown.clone());
        services.spawn(named("cache", forgetting));
        let (registry, database, until) = (
            self.registry.clone(),
            self.database.clone(),
            shutdown.clone(),
        );
        services.spawn(named("registry", async move {
            registry.run(database, until).await;
        }));
        let access = self
            .access
            .clone()
            .run(self.registry.hints(), shutdown.clone());
        services.spawn(named("access", access));
        if let Some(redis) = self.redis.clone() {
            services.spawn(named("redis", redis.run(shutdown.clone())));
        }
        if let Some(folder) = self.config.plugins.watch.clone() {
            let watcher = Watcher::new(folder, self.deployer.clone(), self.control.clone());
            services.spawn(named("watched folder", watcher.run(shutdown.clone())));
        }
        let deciding = self
            .generations
            .clone()
            .run(self.progress.clone(), shutdown.clone());
        services.spawn(named("generations", deciding));
        let kept = feed::Kept {
            minutes: self.config.live.keep_minutes,
            commits: self.config.live.keep_commits,
        };
        let trimming = feed::Trimmer::new(self.control.clone(), kept).run(shutdown.clone());
        services.spawn(named("feed", trimming));
        let running = self
            .ownership()
            .run(self.registry.catalog(), shutdown.clone());
        services.spawn(named("ownership", running));
        catalog
    }

    async fn rooms(
        &self,
        readable: query::catalog::Catalog,
        published: feed::publish::Published,
        shutdown: &Shutdown,
    ) -> Rooms {
        let Self {
            config, database, ..
        } = self;
        let connections = config.database.api_connections;
        let timeout = config.api.statement_timeout_ms.to_string();
        let settings = [
            ("default_transaction_read_only", "on"),
            ("statement_timeout", timeout.as_str()),
        ];
        let readers = database.sessions("reader", connections, &settings);
        let limits = query_limits(config);
        let looks = Looks {
            max_age: Duration::from_millis(config.cache.max_age_ms),
            waiters: limits.waiters,
        };
        let board = Board::new(readers.clone(), self.progress.clone(), looks);
        let live = self.live(readers.clone(), shutdown);
        let timeout = config.api.request_timeout_ms.to_string();
        let writers = database.pool("store", connections, &bounded(&timeout));
        Rooms {
            admin: Admin {
                pool: self.control.clone(),
                registry: self.registry.clone(),
                deployer: self.deployer.clone(),
                generations: self.generations.clone(),
                comparer: Comparer::new(database.clone(), self.control.clone()),
                sources: self.sources.clone(),
                activity: self.activity.clone(),
                module_bytes: config.limits.module_bytes,
            },
            streams: Streams {
                store: Store::new(writers),
                safe: self.sources.own_safe_head(),
                projections: Projections {
                    board: board.clone(),
                    catalog: readable.clone(),
                    limits: limits.clone(),
                    rules: self.access.rules().clone(),
                },
                body_limit: config.api.max_body_bytes,
            },
            described: Described {
                catalog: readable.clone(),
                limits: query_limits(config),
                loopback: config.listen.ip().is_loopback(),
                schema: config.database.read_schema.clone(),
                access: self.access.clone(),
            },
            reader: Reader::new(
                readers,
                readable,
                board,
                self.cache.clone(),
                limits,
                &config.database.read_schema,
                self.access.rules().clone(),
            )
            .with_live(live.clone()),
            redis: self.redis.clone(),
            published,
            live: live.hub.clone(),
        }
    }

    fn live(&self, readers: Sessions, shutdown: &Shutdown) -> Live {
        let live = &self.config.live;
        let timeout = self.config.api.statement_timeout_ms.to_string();
        let pool = |purpose, size| self.database.pool(purpose, size, &bounded(&timeout));
        let pools = feed::Pools {
            topics: pool("topics", TOPIC_SESSIONS),
            subscribers: pool("feed", FEED_SESSIONS),
            readers,
        };
        let bounds = feed::Bounds {
            subscribers: self.bounds.subscribers,
            each: live.max_subscribers_each,
            queue_bytes: live.queue_bytes,
        };
        let progress = self.progress.clone();
        Live {
            hub: feed::Hub::new(pools, progress, bounds, shutdown.clone()),
            heartbeat: Duration::from_millis(live.heartbeat_ms),
        }
    }

    fn ownership(&self) -> Ownership {
        Ownership {
            db: self.database.clone(),
            node: Node::of_this_process(),
            lease: Duration::from_secs(self.config.engine.lease_seconds),
            sources: self.sources.by_name(),
            config: self.config.clone(),
            progress: self.progress.clone(),
            activity: self.activity.clone(),
            failures: self.config.failures_dir().as_deref().map(Folder::new),
        }
    }
}

async fn named(name: &'static str, service: impl Future<Output = ()>) -> &'static str {
    service.await;
    name
}

/// No request leaves a statement behind that still waits when nobody wants its answer any more: for a lock that somebody's
/// open transaction holds, above all.
fn bounded(timeout_ms: &str) -> [(&'static str, &str); 2] {
    [("lock_timeout", "10s"), ("statement_timeout", timeout_ms)]
}

fn query_limits(config: &Config) -> query::Limits {
    let wait = Duration::from_millis(config.api.max_wait_ms);
    let defaults = query::Limits::default();
    query::Limits {
        rows: config.api.max_rows as u64,
        cost: (config.api.max_cost > 0).then_some(config.api.max_cost),
        wait,
        default_wait: defaults.default_wait.min(wait),
        // Whoever waits takes a request's place, however many it waits for, and others want to be answered.
        waiters: defaults.waiters.min(config.api.max_requests.div_ceil(2)),
        ..defaults
    }
}

/// Waits for the database, then brings its schema up to date. Fails when waiting would not help.
async fn migrate_when_there(database: &Database) -> Result<(), ServeError> {
    let mut pause = Duration::from_millis(100);
    loop {
        let why =
            match database.connect("migrate", &[]).await {
                Ok(mut client) => match migrate::migrate(&mut client).await {
                    Ok(()) => return Ok(()),
                    Err(
                        MigrateError::Database(error) | MigrateError::Step { source: error, .. },
                    ) if is_infrastructure(&error) => describe(&error),
                    Err(error) => return Err(error.into()),
                },
                Err(error) if is_infrastructure(&error) => describe(&error),
                Err(error) => return Err(ServeError::Refused(describe(&error))),
            };
        tracing::warn!(
            database = database.name(),
            why,
            "waiting for the database; trying again"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

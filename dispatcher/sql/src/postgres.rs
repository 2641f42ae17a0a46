//! A connection to Postgres, directly or through a connection pooler in transaction mode.
//!
//! Behind a pooler nothing of a session lasts: neither prepared statements nor settings. There, each statement is sent with
//! the types of its parameters and without a name, and a transaction sets what it needs. A connection is direct if the
//! server sees both ends of it as this process does.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::TryStreamExt as _;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::NoTls;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, RowStream, SimpleQueryMessage, SimpleQueryRow, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::query::{Answer, SqlParam, SqlQuery};
use crate::row::{Repr, Row};
use crate::tls::{self, TlsMode};
use crate::{Code, DatabaseAnswer, SqlError};

/// Time after which a peer that does not acknowledge data counts as gone: a machine that has disappeared sends no error.
const PEER_GONE: Duration = Duration::from_secs(30);
/// Time without data after which a connection is probed, interval of the probes, and number of those without an answer that
/// end it.
const PROBES: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 4);
/// Settings of a transaction of a batch, which leave the planner only nested loops over indexes, and one plan for a statement.
/// Statistics of a queue table are always wrong: it is much fuller or much emptier than at the last ANALYZE.
const ONLY_INDEXES: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
                            SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_material = off; SET LOCAL jit = off; \
                            SET LOCAL plan_cache_mode = force_generic_plan";
/// Number of statements that a connection keeps prepared. Usher has fewer; a change of that costs time and no memory.
const MAX_PREPARED: usize = 256;
/// SQLSTATEs after which prepared statements are prepared again: the tables have changed, or the server has lost them.
const PREPARE_AGAIN: [&str; 2] = ["0A000", "26000"];

/// The address of a server, with the settings of its connections.
#[derive(Debug, Clone)]
pub(crate) struct PostgresAddress {
    pub(crate) config: Config,
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) tls: TlsMode,
    /// Path or text of the certificates of the authorities that are trusted; `None` for those that browsers trust.
    pub(crate) authorities: Option<String>,
    /// Path or text of this client's certificate, and of its key.
    pub(crate) identity: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Tcp(String),
    /// The folder of a Unix socket.
    Unix(PathBuf),
}

/// A connection and its prepared statements.
pub(crate) struct PostgresConnection {
    client: Client,
    /// True if the connection is that of one session of the server.
    direct: bool,
    prepared: HashMap<String, Statement>,
    /// The statements that begin a transaction, and those that begin one of a batch.
    begin: Arc<str>,
    begin_batch: Arc<str>,
}

impl PostgresConnection {
    /// Connects. `settings` are what each session or transaction begins with, for `SET` or `SET LOCAL`.
    pub(crate) async fn open(address: &PostgresAddress, settings: &[String]) -> Result<Self, SqlError> {
        let set = |scope: &str| settings.iter().map(|setting| format!("{scope} {setting}; ")).collect::<String>();
        let (client, ends) = connect(address).await?;
        // A socket of Unix has no address: what is behind it is not known.
        let direct = match ends {
            None => false,
            Some(ends) => ends_seen(&client).await? == Some(ends),
        };
        // The level that the statements are written for, whatever the role's default is.
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED; ";
        let begin = if direct {
            client.batch_execute(&set("SET")).await?;
            begin.to_owned()
        } else {
            format!("{begin}{}", set("SET LOCAL"))
        };
        let begin_batch = format!("{begin}{ONLY_INDEXES}").into();
        Ok(Self { client, direct, prepared: HashMap::new(), begin: begin.into(), begin_batch })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a statement outside of a transaction.
    pub(crate) async fn run_alone(&mut self, query: SqlQuery) -> Result<Answer, SqlError> {
        if self.direct {
            return self.run(query).await;
        }
        let mut answers = self.transact(&[query]).await?;
        answers.pop().ok_or_else(|| SqlError::Driver("no answer".to_owned()))
    }

    /// Runs a statement within a transaction, if there is one.
    pub(crate) async fn run(&mut self, query: SqlQuery) -> Result<Answer, SqlError> {
        self.prepare(&query).await?;
        let answer = self.send(&query).await;
        self.forget_if_stale(&answer);
        answer
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&mut self) -> Result<(), SqlError> {
        Ok(self.client.batch_execute(&self.begin).await?)
    }

    pub(crate) async fn batch(&mut self, sql: &str) -> Result<(), SqlError> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Runs the statements in one transaction and one round trip.
    pub(crate) async fn transact(&mut self, queries: &[SqlQuery]) -> Result<Vec<Answer>, SqlError> {
        for query in queries {
            self.prepare(query).await?;
        }
        let answers = self.pipeline(Some(&self.begin_batch), queries, Some("COMMIT")).await;
        self.forget_if_stale(&answers);
        answers
    }

    /// Runs the statements within a transaction, in one round trip.
    pub(crate) async fn run_all(&mut self, queries: &[SqlQuery]) -> Result<Vec<Answer>, SqlError> {
        for query in queries {
            self.prepare(query).await?;
        }
        let answers = self.pipeline(None, queries, None).await;
        self.forget_if_stale(&answers);
        answers
    }

    /// Sends all statements before the first answer is awaited. Of several errors the first counts: it makes the server
    /// refuse the rest.
    async fn pipeline(
        &self,
        before: Option<&str>,
        queries: &[SqlQuery],
        after: Option<&str>,
    ) -> Result<Vec<Answer>, SqlError> {
        let bare = async |sql: Option<&str>| match sql {
            Some(sql) => Ok(self.client.batch_execute(sql).await.map(|()| Answer::default())?),
            None => Ok(Answer::default()),
        };
        let mut sent: Vec<Sent<'_>> = vec![Sent::new(bare(before))];
        sent.extend(queries.iter().map(|query| Sent::new(self.send(query))));
        let count = sent.len();
        // The first poll of each, in this order, sends it.
        std::future::poll_fn(|context| {
            sent.iter_mut().for_each(|sent| sent.poll(context));
            if sent.len() == count {
                // A statement with an error was not sent, so the rest must not be kept.
                let unsent = sent.iter().any(|sent| matches!(sent.answer, Some(Err(_))));
                sent.push(Sent::new(bare(if unsent { after.map(|_| "ROLLBACK") } else { after })));
                sent.iter_mut().for_each(|sent| sent.poll(context));
            }
            if sent.iter().all(|sent| sent.answer.is_some()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let mut answers = sent.into_iter().filter_map(|sent| sent.answer).collect::<Result<Vec<_>, _>>()?;
        answers.pop();
        answers.remove(0);
        Ok(answers)
    }

    async fn prepare(&mut self, query: &SqlQuery) -> Result<(), SqlError> {
        if self.direct && query.is_prepared && !self.prepared.contains_key(&*query.sql) {
            if self.prepared.len() >= MAX_PREPARED {
                self.prepared.clear();
            }
            let types: Vec<Type> = query.params.iter().map(type_of).collect();
            let statement = self.client.prepare_typed(&query.sql, &types).await?;
            self.prepared.insert(query.sql.to_string(), statement);
        }
        Ok(())
    }

    fn forget_if_stale<T>(&mut self, answer: &Result<T, SqlError>) {
        if let Err(SqlError::Answer(DatabaseAnswer { code: Code::Sqlstate(code), .. })) = answer
            && PREPARE_AGAIN.contains(&code.as_str())
        {
            self.prepared.clear();
        }
    }

    async fn send(&self, query: &SqlQuery) -> Result<Answer, SqlError> {
        let rows: RowStream = match self.prepared.get(&*query.sql) {
            Some(statement) => self.client.query_raw(statement, &query.params).await?,
            None => {
                let params = query.params.iter().map(|param| (param, type_of(param)));
                self.client.query_typed_raw(&query.sql, params).await?
            }
        };
        let mut rows = pin!(rows);
        let mut answer = Answer::default();
        while let Some(row) = rows.try_next().await? {
            answer.rows.push(Row(Repr::Postgres(row)));
        }
        answer.changed = rows.rows_affected().unwrap_or(0);
        Ok(answer)
    }
}

/// A statement that was sent, and its answer once there is one.
struct Sent<'a> {
    future: Pin<Box<dyn Future<Output = Result<Answer, SqlError>> + Send + 'a>>,
    answer: Option<Result<Answer, SqlError>>,
}

impl<'a> Sent<'a> {
    fn new(future: impl Future<Output = Result<Answer, SqlError>> + Send + 'a) -> Self {
        Self { future: Box::pin(future), answer: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        if self.answer.is_none()
            && let Poll::Ready(answer) = self.future.as_mut().poll(context)
        {
            self.answer = Some(answer);
        }
    }
}

/// This process's end of a TCP connection, and the server's.
type Ends = (SocketAddr, SocketAddr);

/// Returns the ends of the connection as the server sees them; `None` if it has no addresses.
async fn ends_seen(client: &Client) -> Result<Option<Ends>, SqlError> {
    let sql = "SELECT host(inet_client_addr()), inet_client_port(), host(inet_server_addr()), inet_server_port()";
    let row = client.simple_query(sql).await?.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let end = |row: &SimpleQueryRow, at: usize| {
        let address: IpAddr = row.get(at)?.parse().ok()?;
        Some(SocketAddr::new(address.to_canonical(), row.get(at + 1)?.parse().ok()?))
    };
    Ok(row.and_then(|row| Some((end(&row, 0)?, end(&row, 2)?))))
}

/// Connects, and returns the ends of a TCP connection.
async fn connect(address: &PostgresAddress) -> Result<(Client, Option<Ends>), SqlError> {
    match &address.host {
        Host::Unix(folder) => {
            let stream = UnixStream::connect(folder.join(format!(".s.PGSQL.{}", address.port))).await?;
            let (client, connection) = address.config.connect_raw(stream, NoTls).await?;
            tokio::spawn(connection);
            Ok((client, None))
        }
        Host::Tcp(host) => {
            let stream = TcpStream::connect((host.as_str(), address.port)).await?;
            stream.set_nodelay(true)?;
            notice_when_gone(&stream)?;
            let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
            let ends = (canonical(stream.local_addr()?), canonical(stream.peer_addr()?));
            let client = match tls::client(address)? {
                None => start(address, stream, NoTls).await?,
                Some(settings) => {
                    let mut tls = MakeRustlsConnect::new(settings);
                    let tls = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<TcpStream>>::make_tls_connect(
                        &mut tls, host,
                    )
                    .map_err(|error| SqlError::Tls(error.to_string()))?;
                    start(address, stream, tls).await?
                }
            };
            Ok((client, Some(ends)))
        }
    }
}

/// Lets the system find out that the peer is gone, also of a connection that is not used.
fn notice_when_gone(stream: &TcpStream) -> std::io::Result<()> {
    let (idle, interval, count) = PROBES;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_keepcnt(stream, count)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(PEER_GONE.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

async fn start<S, T>(address: &PostgresAddress, stream: S, tls: T) -> Result<Client, SqlError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: tokio_postgres::tls::TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let (client, connection) = address.config.connect_raw(stream, tls).await?;
    // Its errors arrive at the statements, too.
    tokio::spawn(connection);
    Ok(client)
}

fn type_of(param: &SqlParam) -> Type {
    match param {
        SqlParam::Int(_) => Type::INT8,
        SqlParam::Text(_) => Type::TEXT,
        SqlParam::Bytes(_) => Type::BYTEA,
        SqlParam::Ints(_) => Type::INT8_ARRAY,
        SqlParam::Texts(_) => Type::TEXT_ARRAY,
        SqlParam::Blobs(_) => Type::BYTEA_ARRAY,
    }
}

impl ToSql for SqlParam {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Int(value) => value.to_sql(kind, out),
            Self::Text(value) => value.to_sql(kind, out),
            Self::Bytes(value) => value.as_deref().to_sql(kind, out),
            Self::Ints(values) => values.to_sql(kind, out),
            Self::Texts(values) => values.to_sql(kind, out),
            Self::Blobs(values) => values.iter().map(Option::as_deref).collect::<Vec<_>>().to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // The type is that of the value: see `type_of`.
        true
    }

    to_sql_checked!();
}

//! Connections: their number is limited, idle ones can be closed, and all end when the server stops.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::places::{Full, Place, Places};
use super::refusal::Refusal;
use super::write_timeout::WriteTimeout;
use super::{Limits, Server, routes};

/// Interval between checks whether to stop.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Time limit for a client to read a rejection, or the rest of an answer when the server stops.
const SHORT: Duration = Duration::from_secs(1);
/// Maximum number of connections that receive a rejection at the same time.
const REFUSED: usize = 64;
/// Size of a connection's input buffer, which must hold the head of a request, and of its output buffer, bytes.
const BUFFER: usize = 64 << 10;

/// Serves connections until `stops` returns true, and then finishes in-flight requests within the grace period.
pub(super) async fn answer(listener: TcpListener, server: Arc<Server>, stops: &dyn Fn() -> bool) {
    let limits = server.settings.limits;
    let places = Places::new(limits.connections, limits.connections_per_address);
    let router = routes::router(server);
    let refused = Arc::new(Semaphore::new(REFUSED));
    let (stopping, stopped) = watch::channel(());
    let mut open = JoinSet::new();
    let mut checks = interval(CHECK_INTERVAL);
    while !stops() {
        let accepted = tokio::select! {
            _ = checks.tick() => continue,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, client)) = accepted else {
            // An error such as too many open files may pass.
            sleep(CHECK_INTERVAL).await;
            continue;
        };
        match places.take(client.ip()) {
            Ok(place) => {
                let task = open.spawn(serve_connection(stream, router.clone(), place.clone(), limits, stopped.clone()));
                place.ends_with(task);
            }
            Err(full) => {
                // Beyond the limit of rejections, the connection is closed without one.
                if let Ok(permit) = Arc::clone(&refused).try_acquire_owned() {
                    open.spawn(async move {
                        _ = timeout(SHORT, refuse(stream, full)).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop((listener, stopped));
    _ = stopping.send(());
    let ended = async { while open.join_next().await.is_some() {} };
    let answered = async {
        while places.answering() > 0 {
            sleep(CHECK_INTERVAL).await;
        }
        // Gives clients time to receive the last answers.
        sleep(SHORT).await;
    };
    tokio::select! {
        () = ended => {}
        () = answered => {}
        () = sleep(limits.grace) => {}
    }
    // Connections that are still open are aborted with their tasks.
}

/// Answers the requests of a connection.
async fn serve_connection(
    stream: TcpStream,
    router: Router,
    place: Place,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    // Sends each token at once, although its packet is small.
    _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, limits.request)), service);
    let mut connection = std::pin::pin!(connection);
    // Disconnections and malformed HTTP are not reported.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    _ = connection.await;
}

/// Sends the reason to a client whose connection is rejected.
async fn refuse(mut stream: TcpStream, full: Full) -> std::io::Result<()> {
    let refusal = match full {
        Full::Client => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "this address has reached the limit of connections per client; try again later",
        ),
        Full::Server => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "all connections are in use; try again later"),
    };
    // Waits for a request, as clients ignore an answer that comes before it.
    let mut sent = [0; 1024];
    _ = stream.read(&mut sent).await?;
    stream.write_all(refusal.http().as_bytes()).await?;
    stream.shutdown().await?;
    // Reads the rest before closing: closing a connection with unread input would discard the answer.
    while stream.read(&mut sent).await? > 0 {}
    Ok(())
}

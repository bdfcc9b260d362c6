//! Connections: as many as are allowed, none for longer than it is used, and all of them ended when the server stops.

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

/// How often is asked whether to stop.
const ASKED_EVERY: Duration = Duration::from_millis(50);
/// Time limit for a client to read a refusal, or the rest of an answer when the server stops.
const MOMENT: Duration = Duration::from_secs(1);
/// Limit of connections that are refused with an answer at the same time.
const REFUSED: usize = 64;
/// Bytes of a connection's buffers of input, which must hold the head of a request, and of output.
const BUFFER: usize = 64 << 10;

/// Serves connections until `stops`, and then finishes in-flight requests within the time that the limits give.
pub(super) async fn answer(listener: TcpListener, server: Arc<Server>, stops: &dyn Fn() -> bool) {
    let limits = server.settings.limits;
    let places = Places::new(limits.connections, limits.connections_per_address);
    let router = routes::router(server);
    let refused = Arc::new(Semaphore::new(REFUSED));
    let (stopping, stopped) = watch::channel(());
    let mut open = JoinSet::new();
    let mut asked = interval(ASKED_EVERY);
    while !stops() {
        let accepted = tokio::select! {
            _ = asked.tick() => continue,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, client)) = accepted else {
            // Too many files are open, say: it may be better later.
            sleep(ASKED_EVERY).await;
            continue;
        };
        match places.take(client.ip()) {
            Ok(place) => {
                let task = open.spawn(converse(stream, router.clone(), place.clone(), limits, stopped.clone()));
                place.ends_with(task);
            }
            Err(full) => {
                // Beyond the limit of refusals, the connection is closed without one.
                if let Ok(permit) = Arc::clone(&refused).try_acquire_owned() {
                    open.spawn(async move {
                        _ = timeout(MOMENT, refuse(stream, full)).await;
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
            sleep(ASKED_EVERY).await;
        }
        // Gives clients time to receive the last answers.
        sleep(MOMENT).await;
    };
    tokio::select! {
        () = ended => {}
        () = answered => {}
        () = sleep(limits.grace) => {}
    }
    // Connections that are still open are aborted with their tasks.
}

/// Answers the requests of a connection.
async fn converse(stream: TcpStream, router: Router, place: Place, limits: Limits, mut stopped: watch::Receiver<()>) {
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

/// Answers a connection for which there is no place with the reason.
async fn refuse(mut stream: TcpStream, full: Full) -> std::io::Result<()> {
    let refusal = match full {
        Full::Client => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "this address has as many connections as a client may have; try again later",
        ),
        Full::Server => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "all connections are in use; try again later"),
    };
    // Waits for a request: clients ignore an answer that comes before it.
    let mut sent = [0; 1024];
    _ = stream.read(&mut sent).await?;
    stream.write_all(refusal.http().as_bytes()).await?;
    stream.shutdown().await?;
    // Reads on before closing: closing a connection with unread input would discard the refusal.
    while stream.read(&mut sent).await? > 0 {}
    Ok(())
}

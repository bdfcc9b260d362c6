//! Connections: as many as are allowed, none for longer than it is used, and all of them ended when the server stops.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Server, routes};

/// How often is asked whether to stop.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// Answers connections until `stops`, and then the requests that are on their way, for as long as an answer may take.
pub(super) async fn answer(listener: TcpListener, server: Arc<Server>, stops: &dyn Fn() -> bool) {
    let limits = server.settings.limits;
    let open = Arc::new(Semaphore::new(limits.connections));
    let ending = GracefulShutdown::new();
    let router = routes::router(server);
    let mut asked = tokio::time::interval(ASKED_EVERY);
    let mut place = None;
    while !stops() {
        let accepted = tokio::select! {
            _ = asked.tick() => continue,
            free = Arc::clone(&open).acquire_owned(), if place.is_none() => {
                place = free.ok();
                continue;
            }
            accepted = listener.accept(), if place.is_some() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Too many files are open, say: it may be better later.
            tokio::time::sleep(ASKED_EVERY).await;
            continue;
        };
        // A token is a small packet that somebody waits for.
        _ = stream.set_nodelay(true);
        let held = place.take();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.request)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = ending.watch(connection);
        tokio::spawn(async move {
            // A client that hangs up or sends what is no HTTP is nobody to be told about.
            _ = connection.await;
            drop(held);
        });
    }
    drop(listener);
    _ = tokio::time::timeout(limits.answer, ending.shutdown()).await;
}

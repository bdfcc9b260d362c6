//! The thread that owns the model: it takes tasks from the queue and generates for all of them together.

use std::collections::HashMap;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender};

use super::metrics::Metrics;
use crate::engine::schedule::{Engine, Report, Room, Task};
use crate::transformer::model::Transformer;

/// A queued prompt.
pub(super) struct Job {
    pub(super) task: Task,
    /// Receiver of the reports. Its channel has room for all reports of a task; it is closed when the client has
    /// disconnected.
    pub(super) client: Sender<Result<Report, String>>,
    /// Place in the queue, which is freed when the job ends.
    pub(super) place: OwnedSemaphorePermit,
}

/// Maximum number of reports about a task: the prompt, each token, the end.
pub(super) fn max_reports(task: &Task) -> usize {
    task.max_tokens + 2
}

/// Processes jobs until the queue is closed.
pub(super) fn work(model: &Transformer, room: Room, mut jobs: Receiver<Vec<Job>>, metrics: &Metrics) {
    let mut engine = Engine::new(model, room);
    let mut clients: HashMap<u64, (Sender<Result<Report, String>>, OwnedSemaphorePermit)> = HashMap::new();
    let mut id = 0;
    loop {
        let mut taken = Vec::new();
        if engine.is_idle() {
            match jobs.blocking_recv() {
                Some(jobs) => taken.extend(jobs),
                None => return,
            }
        }
        while let Ok(jobs) = jobs.try_recv() {
            taken.extend(jobs);
        }
        for Job { task, client, place } in taken {
            clients.insert(id, (client, place));
            engine.add(id, task);
            id += 1;
        }
        clients.retain(|_, (client, _)| !client.is_closed());
        engine.retain(|id| clients.contains_key(&id));
        let before = engine.done();
        let stepped = engine.step(&mut |id, report| {
            let is_end = matches!(report, Report::End(_) | Report::NotNumbers);
            if matches!(report, Report::Token(_)) {
                metrics.generated.inc();
            }
            if let Some((client, _)) = clients.get(&id) {
                // Sequences of clients that have disconnected are removed before the next step.
                _ = client.try_send(Ok(report));
            }
            if is_end {
                clients.remove(&id);
            }
        });
        if let Err(error) = stepped {
            // No running sequence can continue after an error.
            for (_, (client, _)) in clients.drain() {
                _ = client.try_send(Err(error.to_string()));
            }
        }
        metrics.steps.inc();
        metrics.computed.inc_by(engine.done().computed - before.computed);
        metrics.known.inc_by(engine.done().known - before.known);
        metrics.running.set(engine.running() as i64);
        metrics.queued.set(clients.len() as i64);
    }
}

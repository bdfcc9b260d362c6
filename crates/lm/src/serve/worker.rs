//! The thread that owns the model: it takes tasks from the queue and generates for all of them together.

use std::collections::HashMap;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender};

use super::metrics::Metrics;
use crate::engine::schedule::{Engine, Room, Task, Told};
use crate::transformer::model::Transformer;

/// A queued prompt.
pub(super) struct Job {
    pub(super) task: Task,
    /// Receiver of the reports. Its channel has room for all reports of a task; it is closed when the client has
    /// disconnected.
    pub(super) asker: Sender<Result<Told, String>>,
    /// Place in the queue, which is freed when the job ends.
    pub(super) place: OwnedSemaphorePermit,
}

/// Maximum number of reports about a task: the prompt, each token, the end.
pub(super) fn told_at_most(task: &Task) -> usize {
    task.max_tokens + 2
}

/// Processes jobs until the queue is closed.
pub(super) fn work(model: &Transformer, room: Room, mut jobs: Receiver<Vec<Job>>, metrics: &Metrics) {
    let mut engine = Engine::new(model, room);
    let mut askers: HashMap<u64, (Sender<Result<Told, String>>, OwnedSemaphorePermit)> = HashMap::new();
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
        for Job { task, asker, place } in taken {
            askers.insert(id, (asker, place));
            engine.add(id, task);
            id += 1;
        }
        askers.retain(|_, (asker, _)| !asker.is_closed());
        engine.retain(|id| askers.contains_key(&id));
        let before = engine.done();
        let stepped = engine.step(&mut |id, told| {
            let is_end = matches!(told, Told::End(_) | Told::NotNumbers);
            if matches!(told, Told::Token(_)) {
                metrics.generated.inc();
            }
            if let Some((asker, _)) = askers.get(&id) {
                // Sequences of clients that have disconnected are removed before the next step.
                _ = asker.try_send(Ok(told));
            }
            if is_end {
                askers.remove(&id);
            }
        });
        if let Err(error) = stepped {
            // No running sequence can continue after an error.
            for (_, (asker, _)) in askers.drain() {
                _ = asker.try_send(Err(error.to_string()));
            }
        }
        metrics.steps.inc();
        metrics.computed.inc_by(engine.done().computed - before.computed);
        metrics.known.inc_by(engine.done().known - before.known);
        metrics.running.set(engine.running() as i64);
        metrics.queued.set(askers.len() as i64);
    }
}

//! The thread that has the model: it takes what waits, and lets all of it go on together.

use std::collections::HashMap;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender};

use super::metrics::Metrics;
use crate::engine::schedule::{Engine, Room, Task, Told};
use crate::transformer::model::Transformer;

/// A prompt that waits.
pub(super) struct Job {
    pub(super) task: Task,
    /// Who is told. Has room for all that is told of a task; closed where nobody wants to be told any more.
    pub(super) asker: Sender<Result<Told, String>>,
    /// Its place in the queue, which is free when it is done.
    pub(super) place: OwnedSemaphorePermit,
}

/// Everything that is told of a task: the prompt, each token, the end.
pub(super) fn told_at_most(task: &Task) -> usize {
    task.max_tokens + 2
}

/// Does jobs until nobody can ask for more.
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
                // Who has hung up is forgotten before the next step.
                _ = asker.try_send(Ok(told));
            }
            if is_end {
                askers.remove(&id);
            }
        });
        if let Err(error) = stepped {
            // Nothing that was on its way can go on.
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

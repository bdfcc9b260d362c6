//! Fits of a network to a policy that is known as a table.

use training::{AdamW, Optimizer, OptimizerSettings};

use crate::policy::network::{Network, States};
use crate::world::policy_table::TransitionMatrix;

/// Number of updates of a fit.
const UPDATES: usize = 300;
/// Learning rate of a fit.
const LEARNING_RATE: f64 = 1e-2;
/// Optimizer of a fit: Adam, with its paper's parameters.
const ADAM: OptimizerSettings =
    OptimizerSettings::AdamW(AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 });

/// Fits a network to a policy in the given cells: 300 full-batch updates of Adam at learning rate 0.01 along the
/// gradient of the mean cross-entropy −Σₐ T(a|s) log π(a|s).
pub fn fit(network: &mut Network, policy: &TransitionMatrix, cells: &[usize]) {
    let states = States { cells: cells.to_vec(), begins: vec![0], fusion: None };
    let mut optimizer = Optimizer::new(ADAM, network.parameters.len());
    for _ in 0..UPDATES {
        let mut forward = network.forward(&states);
        // The derivatives ∂/∂z = (π − T) / cells replace π.
        for (row, cell) in forward.policy.iter_mut().zip(cells) {
            *row = std::array::from_fn(|action| (row[action] - policy[*cell][action]) / cells.len() as f64);
        }
        network.gradient.fill(0.0);
        network.backward(&states, &mut forward, &[]);
        optimizer.update(&mut network.parameters, &network.gradient, LEARNING_RATE, 1.0);
    }
    network.gradient.fill(0.0);
}

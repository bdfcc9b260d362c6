//! Policy iteration: evaluate a policy, then let every cell take its best action, until none changes.
//!
//! The evaluation solves V = r + γ P V for the policy's P. On a lake of up to about 10⁴ cells by elimination within
//! the band that neighbours reach; P V is less than V in the sum of each row, so that no pivot is sought. On larger
//! lakes, and a few sweeps at a time in the modified form (Puterman and Shin 1978), by sweeps in place from a V that
//! no backup lowers.

use crate::world::map::ACTIONS;

use super::gauss_seidel::sweep_cells;
use super::plane::Plane;

/// Maximum number of multiplications of an elimination.
const LONGEST: usize = 200_000_000;
/// Number of evaluations by elimination after which all remaining changes are considered rounding.
const MOST: usize = 1000;
/// Number of sweeps of an evaluation in the modified form.
const SWEEPS: usize = 20;

/// Action of each cell, padded like the plane.
type Choices = Vec<u8>;

/// Whether a lake's policies are evaluated by elimination.
pub(super) fn eliminates(width: usize, cells: usize) -> bool {
    cells * width.pow(2) <= LONGEST
}

/// Iterates until no cell's action changes, and returns the number of sweeps.
pub(super) fn solve(plane: &mut Plane) -> usize {
    if !eliminates(plane.width, plane.width * plane.height) {
        return solve_by_sweeps(plane, usize::MAX);
    }
    let mut choices = vec![0; plane.worth.len()];
    improve(plane, &mut choices);
    for evaluation in 1..MOST {
        eliminate(plane, &choices);
        if !improve(plane, &mut choices) {
            return evaluation;
        }
    }
    MOST
}

/// Iterates like [`solve`], with a few sweeps in place of each exact evaluation.
pub(super) fn solve_modified(plane: &mut Plane) -> usize {
    solve_by_sweeps(plane, SWEEPS)
}

fn solve_by_sweeps(plane: &mut Plane, most: usize) -> usize {
    plane.begin_below();
    let mut choices = vec![0; plane.worth.len()];
    let mut sweeps = 0;
    loop {
        sweeps += 1;
        let change = sweep_cells(plane, sweeps % 2 == 1, |plane, index| {
            let q = plane.rules.action_values(plane.around(index));
            let action = first_best(&q);
            choices[index] = action as u8;
            q[action]
        });
        if plane.is_settled(change) {
            return sweeps;
        }
        for _ in 0..most {
            sweeps += 1;
            let change = sweep_cells(plane, sweeps % 2 == 1, |plane, index| {
                plane.rules.action_values(plane.around(index))[usize::from(choices[index])]
            });
            if plane.is_settled(2.0 * change) {
                break;
            }
        }
    }
}

fn first_best(q: &[f64; ACTIONS]) -> usize {
    (1..ACTIONS).fold(0, |best, action| if q[action] > q[best] { action } else { best })
}

/// Changes a cell's action to one that is better by more than the tolerance, and returns whether any changed.
fn improve(plane: &Plane, choices: &mut Choices) -> bool {
    let margin = plane.tolerance() / 2.0;
    let mut improved = false;
    for row in 0..plane.height {
        for column in plane.open_columns(row) {
            let index = plane.index(row, column);
            let q = plane.rules.action_values(plane.around(index));
            let best = first_best(&q);
            if q[best] > q[usize::from(choices[index])] + margin {
                choices[index] = best as u8;
                improved = true;
            }
        }
    }
    improved
}

/// Assigns each cell its policy's value, by Gaussian elimination.
fn eliminate(plane: &mut Plane, choices: &Choices) {
    let (width, cells) = (plane.width, plane.width * plane.height);
    let (intended, aside) = plane.rules.probabilities();
    let band = 2 * width + 1;
    // Row s holds the coefficients of V(s − width) to V(s + width).
    let mut matrix = vec![0.0; cells * band];
    let mut value = vec![0.0; cells];
    let mut open = vec![false; cells];
    for row in 0..plane.height {
        plane.open_columns(row).for_each(|column| open[row * width + column] = true);
    }
    for cell in 0..cells {
        let at = |other: usize| cell * band + width + other - cell;
        matrix[at(cell)] = 1.0;
        if !open[cell] {
            continue;
        }
        let (row, column) = (cell / width, cell % width);
        let ways = [
            cell - usize::from(column > 0),
            cell + if row + 1 < plane.height { width } else { 0 },
            cell + usize::from(column + 1 < width),
            cell - if row > 0 { width } else { 0 },
        ];
        let index = plane.index(row, column);
        let (action, around) = (usize::from(choices[index]), plane.around(index));
        for (turn, probability) in [(ACTIONS - 1, aside), (0, intended), (1, aside)] {
            let way = (action + turn) % ACTIONS;
            if open[ways[way]] {
                matrix[at(ways[way])] -= plane.rules.gamma * probability;
                value[cell] += probability * plane.rules.frozen;
            } else {
                value[cell] += probability * around[way];
            }
        }
    }
    for pivot in 0..cells {
        let last = (pivot + width).min(cells - 1);
        let (above, below) = matrix.split_at_mut((pivot + 1) * band);
        let source = &above[pivot * band + width..];
        for cell in pivot + 1..=last {
            let begin = (cell - pivot - 1) * band + width + pivot - cell;
            let target = &mut below[begin..begin + width + 1];
            if target[0] != 0.0 {
                let factor = target[0] / source[0];
                target.iter_mut().zip(source).for_each(|(target, source)| *target -= factor * source);
                value[cell] -= factor * value[pivot];
            }
        }
    }
    for cell in (0..cells).rev() {
        let row = &matrix[cell * band + width..(cell + 1) * band];
        let known = row[1..].iter().zip(&value[cell + 1..]).map(|(coefficient, value)| coefficient * value);
        value[cell] = (value[cell] - known.sum::<f64>()) / row[0];
    }
    for cell in (0..cells).filter(|&cell| open[cell]) {
        plane.put(cell / width, cell % width, plane.rules.arrival(value[cell]));
    }
}

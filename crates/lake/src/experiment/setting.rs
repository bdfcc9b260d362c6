//! A lake with the optimal policy that others are measured against.

use crate::error::LakeError;
use crate::experiment::recipe::Recipe;
use crate::experiment::report::{MeasureReport, Optimal, Paired, PolicyReport};
use crate::measure::{Measured, performance};
use crate::policy::fit::fit;
use crate::policy::network::{Inputs, Network};
use crate::solver::{Solution, Target, optimal_policy, solve_fast};
use crate::world::environment::Environment;
use crate::world::map::Map;
use crate::world::policy_table::TransitionMatrix;
use gridworld::seeds::{TARGET, stream};

/// A lake with the optimal policy that others are measured against.
#[derive(Debug)]
pub struct Setting {
    environment: Environment,
    solution: Solution,
    /// Optimal policy that others are compared with.
    optimal: TransitionMatrix,
    /// The deterministic optimal policy.
    greedy: TransitionMatrix,
}

impl Setting {
    /// Builds the lake that a recipe names, and computes the optimal policy that it selects.
    ///
    /// # Errors
    ///
    /// [`LakeError`] for a map that does not exist, and for an optimal policy that rounding leaves undecided.
    pub fn new(recipe: &Recipe) -> Result<Self, LakeError> {
        let environment = Environment::new(Map::load(&recipe.map)?, recipe.dynamics());
        let solution = solve_fast(&environment, recipe.gamma);
        let map = environment.map();
        let greedy = optimal_policy(&environment, &solution, Target::Greedy)?;
        let mut optimal = optimal_policy(&environment, &solution, recipe.target)?;
        if recipe.parameterised_target {
            let inputs = Inputs::new(recipe.encoding, map);
            let mut network = Network::new(inputs, recipe.hidden, &mut stream(recipe.seed, 0, TARGET))?;
            fit(&mut network, &optimal, &map.non_terminal());
            let fitted = network.transition_matrix();
            map.non_terminal().into_iter().for_each(|cell| optimal[cell] = fitted[cell]);
        }
        Ok(Self { environment, solution, optimal, greedy })
    }

    /// Lake of the setting.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Values V* and Q* of the lake.
    pub fn solution(&self) -> &Solution {
        &self.solution
    }

    /// Optimal policy that others are compared with.
    pub fn optimal(&self) -> &TransitionMatrix {
        &self.optimal
    }

    /// The deterministic optimal policy.
    pub(crate) fn greedy(&self) -> &TransitionMatrix {
        &self.greedy
    }

    /// Measures the distance and the performance of a policy.
    pub fn measure(&self, policy: TransitionMatrix) -> Measured {
        Measured::new(&self.environment, &self.optimal, policy)
    }

    /// Measures policies from files by their names, at least one per name. `recipe` is the recipe of the setting.
    pub fn report(&self, recipe: &Recipe, policies: Vec<(String, Vec<TransitionMatrix>)>) -> MeasureReport {
        let measured = policies.into_iter().map(|(name, policies)| {
            PolicyReport::new(name, policies.into_iter().map(|policy| self.measure(policy)).collect())
        });
        let mut results: Vec<_> = measured.collect();
        results.sort_by(|a, b| a.distance.mean.total_cmp(&b.distance.mean));
        MeasureReport {
            version: env!("CARGO_PKG_VERSION"),
            lake: recipe.lake(),
            map: self.environment.map().rows(),
            optimal: self.best(),
            paired: Paired::every(&results.iter().collect::<Vec<_>>()),
            results,
        }
    }

    /// The optimal policy and its value.
    pub(crate) fn best(&self) -> Optimal {
        let best = performance(&self.environment, &self.optimal);
        Optimal {
            value: self.solution.value.clone(),
            transition_matrix: self.optimal.clone(),
            success_rate: best.success_rate,
            mean_return: best.mean_return,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::experiment::recipe::{Overrides, Recipe};
    use crate::world::environment::Dynamics;

    #[test]
    fn the_default_recipe_is_gymnasiums_default() {
        let recipe = Recipe::resolve(None, &Overrides::default()).unwrap();
        assert_eq!(recipe.dynamics(), Dynamics::from(false));
    }
}

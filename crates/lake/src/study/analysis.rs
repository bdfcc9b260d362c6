//! Analysis of a study's results: how often an order of methods holds, by how much, and on which factors it depends.
//!
//! # Formula
//!
//! A reading is one design at one stop in one distance. In it, an order holds if each method's mean over the seeds is
//! less than the next one's, and holds significantly if moreover each paired difference over the seeds is greater than
//! the half-width of its 95% confidence interval (Student's t). A share is the mean over designs of the share of a
//! design's readings; its interval is Wilson's for as many observations as there are designs, which is exact for one
//! reading a design and wider than need be for several, whose shares vary less. A difference is the mean over designs
//! of a design's mean paired difference, with Student's interval over designs.
//!
//! The variance that a factor explains is η² = Σₗ nₗ (pₗ − p)² / Σ (x − p)², over readings x of 0 or 1 and the factor's
//! levels l. Each factor is drawn by itself, so that those of different factors add up, but for what only their
//! combinations explain.
//!
//! # Sources
//!
//! J. H. Friedman and N. I. Fisher, "Bump hunting in high-dimensional data", 1999: a [`Region`] is found step by step
//! as there. Wilson's interval is that of [`wilson`].

use program::statistics::{Mean, student, wilson};

use super::reading::{ATTRIBUTES, DISTANCES, DesignResult, stops};
use super::report::{
    Answer, Effect, Estimate, Example, LevelAnswer, LevelEffect, OrderReport, PairReport, Region, Scale, Share,
    StudyReport,
};
use super::shard::Results;
use super::{DISTANCE, Question, STOP, Study};

/// Minimum number of designs in each half for a further level of a region.
const LEAST: usize = 30;
/// Maximum number of examples that are listed.
const EXAMPLES: usize = 20;

/// Measurements of the methods of one order in one reading of a design.
struct Observation {
    design: usize,
    /// Number of the level, by factor, attribute, stop and distance.
    levels: Vec<u16>,
    holds: bool,
    significant: bool,
    reversed: bool,
    clarity: f64,
    difference: f64,
    relative: f64,
    spread: f64,
}

/// Factors by whose levels observations are grouped.
struct Factors {
    names: Vec<String>,
    /// Names of the levels of each factor.
    levels: Vec<Vec<String>>,
}

/// Compares a study's results with its claims.
pub fn analyse(results: &Results) -> StudyReport {
    let Results { version, study, methods, designs } = results;
    let factors = Factors::new(study, designs);
    let quantile = designs.first().and_then(|design| student(design.runs.first()?.len() as f64 - 1.0));
    let quantile = quantile.unwrap_or(f64::INFINITY);
    let observe = |order: &[String]| factors.observe(results, order, quantile);
    let pair = |closer: &String, further: &String| {
        let observations = observe(&[closer.clone(), further.clone()]);
        let all: Vec<_> = observations.iter().collect();
        PairReport {
            closer: closer.clone(),
            further: further.clone(),
            holds: share(&all, |o| o.holds),
            significant: share(&all, |o| o.significant),
            reversed: share(&all, |o| o.reversed),
            difference: difference(&all),
            effects: factors.effects(&observations),
        }
    };
    let others = |(place, closer)| study.order[place + 1..].iter().map(move |further| pair(closer, further));
    let diverged = methods.iter().enumerate().map(|(method, label)| {
        let runs = designs.iter().map(|design| design.runs[method].iter().filter(|run| run.is_none()).count());
        (label.clone(), runs.sum())
    });
    let runs = designs.iter().flat_map(|design| &design.runs).map(Vec::len).sum();
    StudyReport {
        version: version.clone(),
        study: study.clone(),
        scale: Scale {
            designs: designs.len(),
            runs,
            readings: designs.len() * (study.stops.len() + 1) * DISTANCES.len(),
        },
        diverged: diverged.collect(),
        order: factors.order(&study.order, &observe(&study.order)),
        pairs: study.order.iter().enumerate().flat_map(others).collect(),
        questions: study.question.iter().map(|question| factors.answer(question, &observe(&question.order))).collect(),
    }
}

impl Factors {
    fn new(study: &Study, designs: &[DesignResult]) -> Self {
        let mut names: Vec<_> = study.factors().map(str::to_owned).collect();
        let own = names.len();
        names.extend(ATTRIBUTES.map(str::to_owned));
        let mut levels: Vec<_> = (0..names.len())
            .map(|place| {
                let level = |design: &DesignResult| match place.checked_sub(own) {
                    None => design.levels[place].clone(),
                    Some(place) => design.attributes[place].clone(),
                };
                let mut levels: Vec<_> = designs.iter().map(level).collect();
                levels.sort_unstable();
                levels.dedup();
                levels
            })
            .collect();
        names.extend([STOP, DISTANCE].map(str::to_owned));
        levels.push(stops(&study.stops)[1..].to_vec());
        levels.push(DISTANCES.map(str::to_owned).to_vec());
        Self { names, levels }
    }

    fn place(&self, factor: &str) -> Option<usize> {
        self.names.iter().position(|name| name == factor)
    }

    /// All readings of an order, except for designs in which a run of its methods diverged.
    fn observe(&self, results: &Results, order: &[String], quantile: f64) -> Vec<Observation> {
        let stops = results.study.stops.len() + 1;
        let method = |label: &String| results.methods.iter().position(|method| method == label);
        let methods: Vec<_> = order.iter().map(method).collect();
        let mut observations = Vec::new();
        for (number, design) in results.designs.iter().enumerate() {
            let of_design = design.levels.iter().chain(&design.attributes).zip(&self.levels);
            let level = |(level, levels): (&String, &Vec<String>)| levels.binary_search(level).unwrap_or(0) as u16;
            let of_design: Vec<_> = of_design.map(level).collect();
            for (stop, distance) in
                (0..stops).flat_map(|stop| (0..DISTANCES.len()).map(move |distance| (stop, distance)))
            {
                let values = |method: &Option<usize>| -> Option<Vec<f64>> {
                    // The untrained policy is the first reading of any method's run.
                    let (method, reading) = method.map_or((0, 0), |method| (method, stop + 1));
                    let value = |run: &Option<Vec<_>>| {
                        let readings: &Vec<super::reading::Reading> = run.as_ref()?;
                        Some(f64::from(readings.get(reading)?.distances[distance]))
                    };
                    design.runs[method].iter().map(value).collect()
                };
                let Some(values) = methods.iter().map(values).collect::<Option<Vec<_>>>() else { continue };
                let mut levels = of_design.clone();
                levels.extend([stop as u16, distance as u16]);
                observations.push(Observation::new(number, levels, &values, quantile));
            }
        }
        observations
    }

    fn effects(&self, observations: &[Observation]) -> Vec<Effect> {
        let mean = observations.iter().filter(|o| o.holds).count() as f64 / observations.len().max(1) as f64;
        let total = observations.len() as f64 * mean * (1.0 - mean);
        let effect = |place: usize| {
            let (mut between, mut levels) = (0.0, Vec::new());
            for (level, name) in self.levels[place].iter().enumerate() {
                let of: Vec<_> = observations.iter().filter(|o| o.levels[place] == level as u16).collect();
                if of.is_empty() {
                    continue;
                }
                let holding = of.iter().filter(|o| o.holds).count() as f64;
                between += of.len() as f64 * (holding / of.len() as f64 - mean).powi(2);
                levels.push(LevelEffect {
                    level: name.clone(),
                    holds: share(&of, |o| o.holds),
                    significant: share(&of, |o| o.significant),
                    difference: difference(&of),
                });
            }
            Effect {
                factor: self.names[place].clone(),
                explained: if total > 0.0 { between / total } else { 0.0 },
                levels,
            }
        };
        let mut effects: Vec<_> = (0..self.names.len()).map(effect).collect();
        effects.sort_by(|a, b| b.explained.total_cmp(&a.explained));
        effects
    }

    fn order(&self, order: &[String], observations: &[Observation]) -> OrderReport {
        let all: Vec<_> = observations.iter().collect();
        OrderReport {
            order: order.to_vec(),
            holds: share(&all, |o| o.holds),
            significant: share(&all, |o| o.significant),
            effects: self.effects(observations),
            region: self.region(observations),
            examples: self.examples(&all),
        }
    }

    fn examples(&self, observations: &[&Observation]) -> Vec<Example> {
        let mut clear: Vec<_> = observations.iter().filter(|o| o.significant).collect();
        clear.sort_by(|a, b| b.clarity.total_cmp(&a.clarity));
        let level = |o: &Observation, factor: &str| {
            self.place(factor).map_or(String::new(), |place| self.levels[place][o.levels[place] as usize].clone())
        };
        let example = |o: &&&Observation| Example {
            design: o.design,
            stop: level(o, STOP),
            distance: level(o, DISTANCE),
            clarity: o.clarity,
        };
        clear.iter().take(EXAMPLES).map(example).collect()
    }

    fn region(&self, observations: &[Observation]) -> Region {
        let half = |rest: usize| observations.iter().filter(move |o| o.design % 2 == rest).collect::<Vec<_>>();
        let (mut even, mut odd) = (half(0), half(1));
        let mut levels = Vec::new();
        let mut best = share(&even, |o| o.holds).share;
        loop {
            let candidates = (0..self.names.len()).flat_map(|p| (0..self.levels[p].len()).map(move |l| (p, l as u16)));
            let candidates = candidates.filter_map(|(place, level)| {
                let of: Vec<_> = even.iter().copied().filter(|o| o.levels[place] == level).collect();
                let share = share(&of, |o| o.holds);
                (share.designs >= LEAST && share.share > best).then_some((share.share, place, level))
            });
            let Some((share, place, level)) = candidates.max_by(|a, b| a.0.total_cmp(&b.0)) else { break };
            even.retain(|o| o.levels[place] == level);
            odd.retain(|o| o.levels[place] == level);
            levels.push((self.names[place].clone(), self.levels[place][level as usize].clone()));
            best = share;
        }
        Region {
            levels,
            found: share(&even, |o| o.holds),
            confirmed: share(&odd, |o| o.holds),
            confirmed_significant: share(&odd, |o| o.significant),
        }
    }

    fn answer(&self, question: &Question, observations: &[Observation]) -> Answer {
        let selected = |o: &&Observation| {
            question.subset.iter().all(|(factor, selected)| {
                self.place(factor)
                    .is_some_and(|place| selected.levels().contains(&self.levels[place][o.levels[place] as usize]))
            })
        };
        let of: Vec<_> = observations.iter().filter(selected).collect();
        let levels = match question.by.as_deref().and_then(|factor| self.place(factor)) {
            None => vec![answer(None, &of)],
            Some(place) => (self.levels[place].iter().enumerate())
                .map(|(level, name)| {
                    let of: Vec<_> = of.iter().copied().filter(|o| o.levels[place] == level as u16).collect();
                    answer(Some(name.clone()), &of)
                })
                .collect(),
        };
        Answer { question: question.clone(), levels, examples: self.examples(&of) }
    }
}

fn answer(level: Option<String>, observations: &[&Observation]) -> LevelAnswer {
    let relative = observations.iter().map(|o| o.relative);
    let mut spreads: Vec<_> = observations.iter().map(|o| o.spread).filter(|spread| spread.is_finite()).collect();
    spreads.sort_by(f64::total_cmp);
    LevelAnswer {
        level,
        holds: share(observations, |o| o.holds),
        significant: share(observations, |o| o.significant),
        reversed: share(observations, |o| o.reversed),
        difference: difference(observations),
        relative: (relative.clone().fold(f64::INFINITY, f64::min), relative.fold(f64::NEG_INFINITY, f64::max)),
        spread: spreads.get(spreads.len() / 2).copied().unwrap_or(f64::NAN),
    }
}

impl Observation {
    /// Makes a reading of an order, from one value per seed of each method.
    fn new(design: usize, levels: Vec<u16>, values: &[Vec<f64>], quantile: f64) -> Self {
        let seeds = values[0].len() as f64;
        let moments = |values: &mut dyn Iterator<Item = f64>| {
            let values: Vec<_> = values.collect();
            let mean = values.iter().sum::<f64>() / seeds;
            let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
            (mean, (squares / (seeds - 1.0)).sqrt())
        };
        let links: Vec<_> = values
            .windows(2)
            .map(|pair| {
                let differences = &mut pair[1].iter().zip(&pair[0]).map(|(further, closer)| further - closer);
                let (mean, deviation) = moments(differences);
                (mean, quantile * deviation / seeds.sqrt())
            })
            .collect();
        // An interval of no width is of equal differences.
        let clear = |(mean, half): &(f64, f64)| {
            if *half > 0.0 { mean / half } else { mean.signum() * f64::from(*mean != 0.0) * 1e9 }
        };
        let clarity = links.iter().map(clear).fold(f64::INFINITY, f64::min);
        let most = links.iter().map(clear).fold(f64::NEG_INFINITY, f64::max);
        let (first, last) =
            (moments(&mut values[0].iter().copied()), moments(&mut values[values.len() - 1].iter().copied()));
        Self {
            design,
            levels,
            holds: links.iter().all(|(mean, _)| *mean > 0.0),
            significant: clarity > 1.0,
            reversed: most < -1.0,
            clarity,
            difference: last.0 - first.0,
            relative: (last.0 - first.0) / last.0.max(first.0),
            spread: first.1 / last.1,
        }
    }
}

/// Means of the designs' observations, design by design.
fn by_design(observations: &[&Observation], value: impl Fn(&Observation) -> f64) -> Vec<f64> {
    // Observations are in the order of designs.
    observations
        .chunk_by(|a, b| a.design == b.design)
        .map(|of| of.iter().map(|o| value(o)).sum::<f64>() / of.len() as f64)
        .collect()
}

fn share(observations: &[&Observation], holds: impl Fn(&Observation) -> bool) -> Share {
    let shares = by_design(observations, |o| f64::from(holds(o)));
    let share = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    let (low, high) = wilson(share, shares.len());
    Share { designs: shares.len(), share, low, high }
}

fn difference(observations: &[&Observation]) -> Estimate {
    let differences = by_design(observations, |o| o.difference);
    let Mean { mean, half_width: ci95 } = Mean::of(&differences);
    Estimate { mean, ci95 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation(values: &[&[f64]]) -> Observation {
        let values: Vec<_> = values.iter().map(|values| values.to_vec()).collect();
        // Student's t(0.975; 2) = 4.302653.
        Observation::new(0, Vec::new(), &values, 4.302_653)
    }

    #[test]
    fn a_link_is_significant_where_its_paired_interval_is_above_0() {
        // Differences 0.1, 0.2, 0.3: mean 0.2, half-width 4.302653 · 0.1 / √3 = 0.24841.
        let near = observation(&[&[0.0, 0.0, 0.0], &[0.1, 0.2, 0.3]]);
        assert!(near.holds && !near.significant && !near.reversed);
        assert!((near.clarity - 0.2 / 0.248_414).abs() < 1e-5, "{}", near.clarity);
        // The same differences, less spread; the values themselves may vary as they will.
        let clear = observation(&[&[5.0, 7.0, 9.0], &[5.1, 7.11, 9.12]]);
        assert!(clear.holds && clear.significant);
        let reversed = observation(&[&[5.1, 7.11, 9.12], &[5.0, 7.0, 9.0]]);
        assert!(!reversed.holds && reversed.reversed);
        // An order is as clear as its least clear link: differences 0.1, 0.11, 0.12 have half-width 0.0248414.
        let order = observation(&[&[0.0, 0.0, 0.0], &[1.0, 1.01, 1.02], &[1.1, 1.12, 1.14]]);
        assert!(order.holds && order.significant);
        assert!((order.clarity - 0.11 / 0.024_841_4).abs() < 1e-4, "{}", order.clarity);
    }

    #[test]
    fn readings_of_one_design_count_as_one() {
        let reading =
            |design, holds| Observation { design, holds, ..observation(&[&[0.0, 1.0, 2.0], &[1.0, 2.0, 3.0]]) };
        let observations = [reading(0, true), reading(0, true), reading(0, false), reading(0, false), reading(1, true)];
        let share = share(&observations.iter().collect::<Vec<_>>(), |o| o.holds);
        assert_eq!((share.designs, share.share), (2, 0.75));
    }
}

//! Expected gradients of policy gradients, by enumeration of all responses and of all groups of them.
//!
//! Three actions, and a state for each beginning of a response. In the tree of fixed length every response has as many
//! tokens; in the other one action 0 ends it. An expectation over groups of G responses is a sum over all tuples of G.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed check is a panic")]

use objective::{
    Advantage, Aggregation, Constant, Correction, Estimator, Evaluator, Groups, Objective, Place, PolicyGradient,
    Ratio, Scale, Side, TrustRegion,
};

const ACTIONS: usize = 3;

/// Log-probabilities of the actions, one entry per state.
type Policy = Vec<[f64; ACTIONS]>;

/// A gradient by the logits, one entry per state.
type Gradient = Vec<[f64; ACTIONS]>;

/// A response: its states and actions.
type Walk = Vec<(usize, usize)>;

/// All responses of a form.
struct Tree {
    states: usize,
    walks: Vec<Walk>,
}

impl Tree {
    /// Responses of exactly `longest` tokens, or of at most that many tokens if action 0 ends them.
    fn new(longest: usize, ends: bool) -> Self {
        let states = (0..longest).map(|token| ACTIONS.pow(token as u32)).sum();
        let mut walks: Vec<Walk> = Vec::new();
        for number in 0..ACTIONS.pow(longest as u32) {
            let (mut state, mut walk) = (0, Walk::new());
            for token in 0..longest {
                let action = number / ACTIONS.pow(token as u32) % ACTIONS;
                walk.push((state, action));
                state = ACTIONS * state + action + 1;
                if ends && action == 0 {
                    break;
                }
            }
            if !walks.contains(&walk) {
                walks.push(walk);
            }
        }
        Self { states, walks }
    }

    fn policy(&self, frequency: f64) -> Policy {
        let logits = |state: usize| [0, 1, 2].map(|action| 1.2 * (frequency * (3 * state + action + 1) as f64).sin());
        let normalised = |logits: [f64; ACTIONS]| {
            let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            logits.map(|logit| logit - sum)
        };
        (0..self.states).map(|state| normalised(logits(state))).collect()
    }

    /// A reward for each response: 0 or 1, or any number.
    fn rewards(&self, binary: bool) -> Vec<f64> {
        let any =
            |walk: &Walk| walk.iter().map(|&(state, action)| (1.3 * (state + 2 * action) as f64).cos()).sum::<f64>();
        self.walks.iter().map(|walk| if binary { f64::from(u8::from(any(walk) > 0.3)) } else { any(walk) }).collect()
    }

    /// Sum over responses of weight(y) ∇log π(y).
    fn sum_of_scores(&self, policy: &Policy, weight: impl Fn(usize) -> f64) -> Gradient {
        let mut gradient = vec![[0.0; ACTIONS]; self.states];
        for (index, walk) in self.walks.iter().enumerate() {
            pull_back(policy, walk, &vec![1.0; walk.len()], weight(index), &mut gradient);
        }
        gradient
    }

    /// Gradient ∇E[f(y)] of an expectation.
    fn gradient_of_mean(&self, policy: &Policy, f: impl Fn(usize) -> f64) -> Gradient {
        self.sum_of_scores(policy, |index| probability(policy, &self.walks[index]) * f(index))
    }

    fn mean(&self, policy: &Policy, f: impl Fn(usize) -> f64) -> f64 {
        self.walks.iter().enumerate().map(|(index, walk)| probability(policy, walk) * f(index)).sum()
    }

    /// All tuples of `size` responses.
    fn tuples(&self, size: usize) -> impl Iterator<Item = Vec<usize>> {
        let count = self.walks.len();
        (0..count.pow(size as u32))
            .map(move |number| (0..size).map(|place| number / count.pow(place as u32) % count).collect())
    }
}

fn along(policy: &Policy, walk: &Walk) -> Vec<f64> {
    walk.iter().map(|&(state, action)| policy[state][action]).collect()
}

fn probability(policy: &Policy, walk: &Walk) -> f64 {
    along(policy, walk).iter().sum::<f64>().exp()
}

/// Adds `weight` times the gradient by the logits from the cotangents of a response's log-probabilities.
fn pull_back(policy: &Policy, walk: &Walk, cotangents: &[f64], weight: f64, gradient: &mut Gradient) {
    for (&(state, action), cotangent) in walk.iter().zip(cotangents) {
        for (other, slot) in gradient[state].iter_mut().enumerate() {
            *slot += weight * cotangent * (f64::from(u8::from(other == action)) - policy[state][other].exp());
        }
    }
}

/// The policies of a step.
#[derive(Clone, Copy)]
struct Policies<'a> {
    own: &'a Policy,
    behaviour: &'a Policy,
    sampler: &'a Policy,
    reference: &'a Policy,
}

impl<'a> Policies<'a> {
    fn on(own: &'a Policy) -> Self {
        Self { own, behaviour: own, sampler: own, reference: own }
    }
}

/// Expected ascent direction of an objective: minus the expectation of its gradient over groups of `size` responses of
/// the sampler.
fn ascent(
    objective: PolicyGradient,
    tree: &Tree,
    policies: Policies<'_>,
    rewards: &[Vec<f64>],
    size: usize,
) -> Gradient {
    let mut evaluator: Evaluator<_> = objective.evaluator().unwrap();
    let required = objective.requirements().constants;
    let mut gradient = vec![[0.0; ACTIONS]; tree.states];
    for members in tree.tuples(size) {
        let walks: Vec<_> = members.iter().map(|&index| &tree.walks[index]).collect();
        let column = |policy: &Policy| walks.iter().flat_map(|walk| along(policy, walk)).collect::<Vec<_>>();
        let needed = |constant, policy| if required.contains(constant) { column(policy) } else { Vec::new() };
        let lengths: Vec<_> = walks.iter().map(|walk| walk.len()).collect();
        let [behaviour, sampler, reference] = [
            needed(Constant::BehaviourLogProb, policies.behaviour),
            needed(Constant::RolloutLogProb, policies.sampler),
            needed(Constant::ReferenceLogProb, policies.reference),
        ];
        let answer = evaluator
            .evaluate(&Groups {
                responses: Side {
                    log_prob: &column(policies.own),
                    behaviour_log_prob: &behaviour,
                    rollout_log_prob: &sampler,
                    reference_log_prob: &reference,
                    ..Side::of(&lengths)
                },
                group: &vec![0; size],
                reward: &members.iter().flat_map(|&index| rewards[index].clone()).collect::<Vec<_>>(),
            })
            .unwrap();
        let weight: f64 = walks.iter().map(|walk| probability(policies.sampler, walk)).product();
        let mut place = 0;
        for walk in walks {
            let own = &answer.cotangents.log_prob[place..place + walk.len()];
            pull_back(policies.own, walk, own, -weight, &mut gradient);
            place += walk.len();
        }
    }
    gradient
}

fn scaled(gradient: &Gradient, scale: f64) -> Gradient {
    gradient.iter().map(|row| row.map(|slot| scale * slot)).collect()
}

fn difference(a: &Gradient, b: &Gradient) -> Gradient {
    a.iter().zip(b).map(|(a, b)| [0, 1, 2].map(|action| a[action] - b[action])).collect()
}

fn largest(gradient: &Gradient) -> f64 {
    gradient.iter().flatten().fold(0.0, |most: f64, slot| most.max(slot.abs()))
}

#[track_caller]
fn assert_same(ours: &Gradient, claimed: &Gradient, what: &str) {
    let (apart, size) = (largest(&difference(ours, claimed)), largest(claimed));
    assert!(size > 1e-3, "{what}: the claim is empty");
    assert!(apart <= 1e-12 * size.max(1.0), "{what}: {apart:e} of {size:e}");
}

fn single(rewards: &[f64]) -> Vec<Vec<f64>> {
    rewards.iter().map(|&reward| vec![reward]).collect()
}

/// A bandit, and sequences of one to three tokens with equal and with different lengths.
fn trees() -> [Tree; 3] {
    [Tree::new(1, false), Tree::new(2, false), Tree::new(3, true)]
}

#[test]
fn on_policy_every_unbiased_choice_ascends_the_expected_reward() {
    let plain = PolicyGradient {
        advantage: Advantage::LeaveOneOut,
        aggregation: Aggregation::ResponseSum,
        ..PolicyGradient::default()
    };
    let free = PolicyGradient { ratio: Ratio::None, trust_region: TrustRegion::None, ..plain };
    let mut choices = vec![("no ratio", free), ("rloo", PolicyGradient { beta: 0.0, ..PolicyGradient::rloo() })];
    for ratio in [Ratio::Token, Ratio::Sequence, Ratio::SequenceToken] {
        for trust_region in [TrustRegion::Clip, TrustRegion::Cispo, TrustRegion::Sapo, TrustRegion::None] {
            choices.push(("a ratio and a region", PolicyGradient { ratio, trust_region, ..plain }));
        }
    }
    for trust_region in [
        TrustRegion::Vespo,
        TrustRegion::GeometricMean,
        TrustRegion::TotalVariation,
        TrustRegion::BinaryKl,
        TrustRegion::Quadratic,
        TrustRegion::KlCov,
        TrustRegion::Topr,
    ] {
        choices.push(("a region", PolicyGradient { trust_region, ..plain }));
    }
    for correction in [
        Correction::TruncateToken,
        Correction::TruncateSequence,
        Correction::TruncateGeometric,
        Correction::MaskToken,
        Correction::MaskSequence,
        Correction::MaskGeometric,
        Correction::Icepop,
        Correction::OffPolicySequence,
    ] {
        choices.push(("a correction", PolicyGradient { correction, ..plain }));
    }
    for tree in trees() {
        let (policy, rewards) = (tree.policy(1.0), tree.rewards(false));
        let claimed = tree.gradient_of_mean(&policy, |index| rewards[index]);
        for (name, objective) in &choices {
            let ours = ascent(*objective, &tree, Policies::on(&policy), &single(&rewards), 2);
            assert_same(&ours, &claimed, &format!("{name}: {objective:?}"));
        }
        let greedy: Vec<_> = rewards.iter().map(|&reward| vec![reward, 0.7]).collect();
        let ours = ascent(PolicyGradient::remax(), &tree, Policies::on(&policy), &greedy, 2);
        assert_same(&ours, &claimed, "remax");
    }
}

#[test]
fn a_mean_that_includes_the_response_itself_shrinks_the_gradient_by_its_share() {
    for (tree, equal) in trees().into_iter().zip([true, true, false]) {
        let (policy, rewards) = (tree.policy(1.0), tree.rewards(false));
        let gradient = tree.gradient_of_mean(&policy, |index| rewards[index]);
        for size in [2, 3] {
            let shrunk = scaled(&gradient, (size - 1) as f64 / size as f64);
            let ours = |objective| ascent(objective, &tree, Policies::on(&policy), &single(&rewards), size);
            for (name, preset) in [("luspo", PolicyGradient::luspo()), ("topr", PolicyGradient::topr())] {
                assert_same(&ours(PolicyGradient { scale: Scale::None, ..preset }), &shrunk, name);
            }
            let dr_grpo = PolicyGradient { max_tokens: 5, ..PolicyGradient::dr_grpo() };
            assert_same(&ours(dr_grpo), &scaled(&shrunk, 0.2), "dr_grpo");
            // Length-weighted means take their share of each length.
            let weighted = ours(PolicyGradient::opo());
            if equal {
                assert_same(&weighted, &shrunk, "opo");
            }
            let length = |index: usize| tree.walks[index].len() as f64;
            let mut taken = vec![[0.0; ACTIONS]; tree.states];
            for members in tree.tuples(size) {
                let walks = || members.iter().map(|&index| &tree.walks[index]);
                let weight: f64 = walks().map(|walk| probability(&policy, walk)).product();
                let tokens: f64 = members.iter().map(|&index| length(index)).sum();
                let own = weight * length(members[0]) * rewards[members[0]] / tokens;
                let others: f64 =
                    members[1..].iter().map(|&index| weight * length(index) * rewards[index] / tokens).sum();
                let first = &tree.walks[members[0]];
                pull_back(&policy, first, &vec![1.0; first.len()], own + others, &mut taken);
            }
            assert_same(&weighted, &difference(&gradient, &taken), "opo, less its baseline's part");
        }
    }
}

#[test]
fn means_over_a_responses_tokens_ascend_the_covariance_of_the_reward_with_the_score_over_the_length() {
    for tree in trees() {
        let (policy, rewards) = (tree.policy(1.0), tree.rewards(false));
        let length = |index: usize| tree.walks[index].len() as f64;
        let mean = tree.mean(&policy, |index| rewards[index]);
        let covariance = tree.gradient_of_mean(&policy, |index| (rewards[index] - mean) / length(index));
        for (name, preset) in [
            ("grpo", PolicyGradient::grpo()),
            ("gspo", PolicyGradient::gspo()),
            ("gspo_token", PolicyGradient::gspo_token()),
            ("sapo", PolicyGradient::sapo()),
            ("gmpo", PolicyGradient::gmpo()),
        ] {
            let preset = PolicyGradient { scale: Scale::None, ..preset };
            let ours = ascent(preset, &tree, Policies::on(&policy), &single(&rewards), 2);
            assert_same(&ours, &scaled(&covariance, 0.5), name);
        }
    }
}

#[test]
fn means_over_tokens_ascend_the_expected_reward_where_lengths_are_equal() {
    for (tree, length) in [(Tree::new(1, false), 1.0), (Tree::new(2, false), 2.0)] {
        let (policy, rewards) = (tree.policy(1.0), tree.rewards(false));
        let claimed = scaled(&tree.gradient_of_mean(&policy, |index| rewards[index]), 0.5 / length);
        for (name, preset) in [
            ("dapo", PolicyGradient::dapo()),
            ("bnpo", PolicyGradient::bnpo()),
            ("cispo", PolicyGradient::cispo()),
            ("vespo", PolicyGradient::vespo()),
            ("gpg", PolicyGradient::gpg()),
            ("dppo_tv", PolicyGradient::dppo_tv()),
            ("dppo_kl", PolicyGradient::dppo_kl()),
            ("dro", PolicyGradient::dro()),
            ("kl_cov", PolicyGradient::kl_cov()),
            ("tis", PolicyGradient::tis()),
            ("mis", PolicyGradient::mis()),
            ("icepop", PolicyGradient::icepop()),
        ] {
            for aggregation in [Aggregation::TokenMean, Aggregation::PromptMean] {
                let preset = PolicyGradient { scale: Scale::None, aggregation, ..preset };
                let ours = ascent(preset, &tree, Policies::on(&policy), &single(&rewards), 2);
                assert_same(&ours, &claimed, name);
            }
        }
    }
}

#[test]
fn maximum_likelihood_ascends_its_series_up_to_one_less_than_the_group() {
    for tree in trees() {
        let (policy, rewards) = (tree.policy(1.0), tree.rewards(true));
        let success = tree.mean(&policy, |index| rewards[index]);
        let gradient = tree.gradient_of_mean(&policy, |index| rewards[index]);
        for size in [2, 3] {
            let series: f64 = (1..size).map(|k| (1.0 - success).powi(k - 1)).sum();
            let ours = ascent(PolicyGradient::max_rl(), &tree, Policies::on(&policy), &single(&rewards), size as usize);
            assert_same(&ours, &scaled(&gradient, series), &format!("max_rl, groups of {size}"));
        }
    }
}

#[test]
fn the_best_of_k_ascends_its_expectation_over_k() {
    for tree in trees() {
        let (policy, rewards) = (tree.policy(1.0), tree.rewards(false));
        for k in [2, 3] {
            let mut claimed = vec![[0.0; ACTIONS]; tree.states];
            for members in tree.tuples(k) {
                let weight: f64 = members.iter().map(|&index| probability(&policy, &tree.walks[index])).product();
                let best = members.iter().map(|&index| rewards[index]).fold(f64::NEG_INFINITY, f64::max);
                for &index in &members {
                    let walk = &tree.walks[index];
                    pull_back(&policy, walk, &vec![1.0; walk.len()], weight * best / k as f64, &mut claimed);
                }
            }
            let best = PolicyGradient {
                advantage: Advantage::PassAtK,
                scale: Scale::None,
                pass_k: k,
                aggregation: Aggregation::ResponseSum,
                ..PolicyGradient::default()
            };
            let ours = ascent(best, &tree, Policies::on(&policy), &single(&rewards), 3);
            assert_same(&ours, &claimed, &format!("the best of {k}"));
        }
    }
}

#[test]
fn division_by_the_groups_deviation_weighs_prompts_by_their_success_rate() {
    const SIZE: i32 = 3;
    for tree in trees() {
        let (policy, rewards) = (tree.policy(1.0), tree.rewards(true));
        let success = tree.mean(&policy, |index| rewards[index]);
        let gradient = tree.gradient_of_mean(&policy, |index| rewards[index]);
        // Given how many of a group succeed, scores of successes are ∇p/p on average, and of failures −∇p/(1 − p).
        let mut factor = 0.0;
        for (solved, ways) in [(1, 3.0), (2, 3.0)] {
            let chance = ways * success.powi(solved) * (1.0 - success).powi(SIZE - solved);
            let (solved, size) = (f64::from(solved), f64::from(SIZE));
            let (mean, deviation) = (solved / size, (solved * (size - solved) / size / (size - 1.0)).sqrt());
            let [good, bad] = [1.0, 0.0].map(|reward| (reward - mean) / (deviation + 1e-4));
            let failed = size - solved;
            factor += chance * (solved * good / success - failed * bad / (1.0 - success)) / size;
        }
        let luspo = PolicyGradient::luspo();
        let ours = ascent(luspo, &tree, Policies::on(&policy), &single(&rewards), SIZE as usize);
        assert_same(&ours, &scaled(&gradient, factor), "luspo, scaled by the group");
    }
}

#[test]
fn off_policy_the_ratio_of_the_whole_response_makes_the_gradient_exact() {
    let exact = PolicyGradient {
        advantage: Advantage::LeaveOneOut,
        ratio: Ratio::Product,
        trust_region: TrustRegion::None,
        ..PolicyGradient::default()
    };
    let corrected = PolicyGradient { correction: Correction::TruncateSequence, correction_max: Some(1e6), ..exact };
    for tree in trees() {
        let [own, lagging, sampler] = [1.0, 1.3, 1.7].map(|frequency| tree.policy(frequency));
        let rewards = tree.rewards(false);
        let claimed = tree.gradient_of_mean(&own, |index| rewards[index]);
        let behind = Policies { own: &own, behaviour: &lagging, sampler: &lagging, reference: &own };
        assert_same(&ascent(exact, &tree, behind, &single(&rewards), 2), &claimed, "a policy that lags");
        let apart = Policies { sampler: &sampler, ..behind };
        assert_same(&ascent(corrected, &tree, apart, &single(&rewards), 2), &claimed, "and a sampler that differs");
        // Without the correction the gradient is another one.
        let biased = ascent(exact, &tree, apart, &single(&rewards), 2);
        assert!(largest(&difference(&biased, &claimed)) > 0.01 * largest(&claimed));
    }
}

/// Gradients of KL(π || π_ref), KL(π_ref || π) and E_π[d²]/2 at each state, times the probability that the sampler
/// visits it.
fn divergences(tree: &Tree, policies: Policies<'_>) -> [Gradient; 3] {
    let mut gradients = [(); 3].map(|()| vec![[0.0; ACTIONS]; tree.states]);
    for walk in &tree.walks {
        let weight = probability(policies.sampler, walk);
        for &(state, _) in walk {
            let (own, other) = (policies.own[state], policies.reference[state]);
            let drift = [0, 1, 2].map(|action| own[action] - other[action]);
            let mean = |f: &dyn Fn(usize) -> f64| (0..ACTIONS).map(|action| own[action].exp() * f(action)).sum::<f64>();
            let (kl, squares) =
                (mean(&|action| drift[action]), mean(&|action| drift[action].powi(2) / 2.0 + drift[action]));
            for action in 0..ACTIONS {
                let p = own[action].exp();
                gradients[0][state][action] += weight * p * (drift[action] - kl);
                gradients[1][state][action] += weight * (p - other[action].exp());
                let square = drift[action].powi(2) / 2.0 + drift[action];
                gradients[2][state][action] += weight * p * (square - squares);
            }
        }
    }
    gradients
}

/// Contribution of one unit of β to the descent direction.
fn descent_of_divergence(
    (divergence, place): (Estimator, Place),
    plain: PolicyGradient,
    tree: &Tree,
    policies: Policies<'_>,
) -> Gradient {
    let rewards = single(&tree.rewards(false));
    let with = PolicyGradient { beta: 0.5, divergence, divergence_place: place, ..plain };
    let direction = |objective| ascent(objective, tree, policies, &rewards, 2);
    scaled(&difference(&direction(plain), &direction(with)), 2.0)
}

const PLAIN: fn() -> PolicyGradient = || PolicyGradient {
    advantage: Advantage::LeaveOneOut,
    aggregation: Aggregation::ResponseSum,
    ..PolicyGradient::default()
};

#[test]
fn on_policy_each_estimator_in_each_place_descends_what_the_table_says() {
    for tree in trees() {
        let [own, reference] = [1.0, 2.9].map(|frequency| tree.policy(frequency));
        let policies = Policies { reference: &reference, ..Policies::on(&own) };
        let [reverse, forward, squares] = divergences(&tree, policies);
        for (estimator, place, claimed) in [
            (Estimator::K1, Place::Corrected, &reverse),
            (Estimator::K2, Place::Loss, &reverse),
            (Estimator::K2, Place::Corrected, &squares),
            (Estimator::K3, Place::Loss, &forward),
            (Estimator::K3, Place::Corrected, &reverse),
        ] {
            let ours = descent_of_divergence((estimator, place), PLAIN(), &tree, policies);
            assert_same(&ours, claimed, &format!("{estimator:?} in {place:?}"));
        }
        let nothing = descent_of_divergence((Estimator::K1, Place::Loss), PLAIN(), &tree, policies);
        assert!(largest(&nothing) < 1e-12, "k1 in the loss: {nothing:?}");
    }
}

#[test]
fn in_the_reward_of_one_token_k1_and_k3_descend_what_the_table_says_and_k2_no_divergence() {
    let tree = Tree::new(1, false);
    let [own, reference] = [1.0, 2.9].map(|frequency| tree.policy(frequency));
    let policies = Policies { reference: &reference, ..Policies::on(&own) };
    let [reverse, forward, squares] = divergences(&tree, policies);
    let ours = |estimator| descent_of_divergence((estimator, Place::Reward), PLAIN(), &tree, policies);
    assert_same(&ours(Estimator::K1), &reverse, "k1");
    assert_same(&ours(Estimator::K3), &difference(&reverse, &forward), "k3");
    for other in [&reverse, &forward, &squares] {
        assert!(largest(&difference(&ours(Estimator::K2), other)) > 0.01);
    }
}

#[test]
fn k1_in_the_reward_descends_the_divergence_of_whole_responses() {
    for tree in trees() {
        let [own, reference] = [1.0, 2.9].map(|frequency| tree.policy(frequency));
        let policies = Policies { reference: &reference, ..Policies::on(&own) };
        let drift = |index: usize| {
            let walk = &tree.walks[index];
            along(&own, walk).iter().sum::<f64>() - along(&reference, walk).iter().sum::<f64>()
        };
        let ours = descent_of_divergence((Estimator::K1, Place::Reward), PLAIN(), &tree, policies);
        assert_same(&ours, &tree.gradient_of_mean(&own, drift), "k1 in the reward");
    }
}

#[test]
fn corrected_estimators_descend_the_same_whichever_policy_sampled() {
    for tree in trees() {
        let [own, lagging, reference] = [1.0, 1.7, 2.9].map(|frequency| tree.policy(frequency));
        let policies = Policies { own: &own, behaviour: &lagging, sampler: &lagging, reference: &reference };
        let [reverse, _, squares] = divergences(&tree, policies);
        for plain in [
            PLAIN(),
            PolicyGradient { ratio: Ratio::Sequence, clip: 0.01, ..PLAIN() },
            PolicyGradient { delta: Some(1.5), ..PLAIN() },
            PolicyGradient { trust_region: TrustRegion::Cispo, max_ratio: Some(1.1), ..PLAIN() },
            PolicyGradient { trust_region: TrustRegion::Sapo, ..PLAIN() },
            PolicyGradient { trust_region: TrustRegion::Vespo, ..PLAIN() },
            PolicyGradient { trust_region: TrustRegion::GeometricMean, ..PLAIN() },
        ] {
            for (estimator, claimed) in
                [(Estimator::K1, &reverse), (Estimator::K2, &squares), (Estimator::K3, &reverse)]
            {
                let ours = descent_of_divergence((estimator, Place::Corrected), plain, &tree, policies);
                assert_same(&ours, claimed, &format!("{estimator:?}, {plain:?}"));
            }
        }
        // As they stand, estimators are the divergence of no policy from the reference off policy.
        for estimator in [Estimator::K1, Estimator::K2, Estimator::K3] {
            let ours = descent_of_divergence((estimator, Place::Loss), PLAIN(), &tree, policies);
            assert!(largest(&difference(&ours, &reverse)) > 0.01 * largest(&reverse), "{estimator:?}");
        }
    }
}

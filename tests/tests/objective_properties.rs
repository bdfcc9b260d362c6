//! What must hold for every objective, whatever its parameters and the batch.

use std::ops::Bound;

use objective::dpo::Dpo;
use objective::ift::{Ift, Propagation};
use objective::orpo::Orpo;
use objective::parameter::Kind;
use objective::preference::{PairLoss, Pairwise, Score};
use objective::sft::{Normalisation, Sft, Weighting};
use objective::{
    Coupling, Data, Evaluation, Freeze, Lambda, METHODS, Method, Metric, Objective, ParameterError, Parameters,
    Statistic, StepTotals, Value, registry,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tests::{OwnedBatch, Token, Tokens, assert_close, central_difference, rounding};

/// Every registered objective, with any of its parameters.
fn objectives() -> impl Strategy<Value = Box<dyn Objective>> {
    (0..METHODS.len()).prop_flat_map(|index| {
        let method = &METHODS[index];
        let values: Vec<_> = method.parameters.iter().map(|parameter| values(parameter.kind)).collect();
        values.prop_map(move |values| {
            let names = method.parameters.iter().map(|parameter| parameter.name.to_owned());
            build(method, names.zip(values).filter_map(|(name, value)| Some((name, value?))).collect())
        })
    })
}

/// Builds the objective, without the parameters that the others leave unused.
fn build(method: &Method, mut parameters: Parameters) -> Box<dyn Objective> {
    loop {
        match (method.build)(&parameters) {
            Ok(objective) => return objective,
            Err(ParameterError::Unused { name, .. }) => drop(parameters.remove(name)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// No value, or one that is allowed; of wide ranges only the plausible part, or finite differences would drown.
fn values(kind: Kind) -> BoxedStrategy<Option<Value>> {
    let value = match kind {
        Kind::Number { range, .. } | Kind::Derived { range, .. } => {
            let (low, high) = match range {
                (Bound::Included(0.0), Bound::Included(high)) => (0.0, high),
                (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high)) => (low.max(1e-3), high),
                (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high)) => (low, high - 0.01),
                _ => unreachable!("every range is bounded"),
            };
            let high = high.min(10.0);
            prop_oneof![Just(low), low..=high, Just(high)].prop_map(Value::Number).boxed()
        }
        Kind::Choice { options, .. } => select(options).prop_map(Value::from).boxed(),
        Kind::Switch { .. } => any::<bool>().prop_map(Value::from).boxed(),
    };
    prop_oneof![Just(None), value.prop_map(Some)].boxed()
}

/// An even number of ragged responses of 1 to 64 tokens.
fn responses(log_prob: impl Strategy<Value = f64> + Clone + 'static) -> impl Strategy<Value = Vec<Tokens>> {
    let token = (log_prob.clone(), log_prob.clone(), log_prob).prop_map(|(log_prob, reference_log_prob, kl)| Token {
        log_prob,
        reference_log_prob,
        reference_kl: -kl,
    });
    let response = vec(token, 1..=64);
    vec((response.clone(), response), 1..=4).prop_map(|pairs| {
        let (chosen, rejected): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        chosen.into_iter().chain(rejected).collect()
    })
}

fn moderate() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![-8.0..-0.01, -1.0..-0.01]
}

fn extreme() -> impl Strategy<Value = f64> + Clone {
    let edges = vec![0.0, -0.0, -5e-324, -1e-300, -1e-17, -2.0_f64.powi(-52), -2.0_f64.powi(-53), -1e-12, -745.2, -1e4];
    prop_oneof![select(edges), -1e4..=0.0, (-320.0..4.0).prop_map(|exponent: f64| -(10.0_f64.powf(exponent)))]
}

/// The parts of a batch, each with the whole step's totals: demonstrations one by one, preferences pair by pair.
fn split(objective: &dyn Objective, responses: &[Tokens], totals: StepTotals) -> Vec<OwnedBatch> {
    let half = responses.len() / 2;
    let parts: Vec<Vec<Tokens>> = match objective.requirements().data {
        Data::Demonstrations => responses.iter().map(|tokens| vec![tokens.clone()]).collect(),
        Data::Preferences => (0..half).map(|p| vec![responses[p].clone(), responses[half + p].clone()]).collect(),
    };
    let batch = |part: &Vec<Tokens>| OwnedBatch { totals, ..OwnedBatch::new(&objective.requirements(), part) };
    parts.iter().map(batch).collect()
}

/// Cotangents response by response.
fn by_response(batch: &OwnedBatch, evaluation: &Evaluation) -> Vec<Vec<f64>> {
    batch.responses.iter().map(|r| evaluation.cotangents.log_prob[r.tokens.clone()].to_vec()).collect()
}

/// The stop-gradient of TDPO's second variant: the loss depends on the chosen divergence, its gradient does not.
fn is_stopped(objective: &dyn Objective, batch: &OwnedBatch, statistic: Statistic, token: usize) -> bool {
    statistic == Statistic::ReferenceKl
        && objective.parameters().get("variant") == Some(&Value::from("2"))
        && token < batch.responses[batch.pairs.len()].tokens.start
}

proptest! {
    #[test]
    fn cotangents_are_the_central_differences_of_the_loss(objective in objectives(), responses in responses(moderate())) {
        let batch = OwnedBatch::new(&objective.requirements(), &responses);
        let Evaluation { loss, cotangents, .. } = batch.evaluate(&*objective);
        // The loss is rounded, be it a difference of terms around 1, and so are the sums that it is a function of.
        let sums = batch.statistics.log_prob.iter().chain(&batch.constants.reference_log_prob);
        let steepest = cotangents.log_prob.iter().fold(0.0, |most: f64, c| most.max(c.abs()));
        let magnitude = loss.abs().max(1.0) + steepest * sums.fold(0.0, |sum, value| sum + value.abs());
        if objective.parameters().get("weighting") == Some(&Value::from("dft")) {
            return Ok(()); // Its weights are behind a stop-gradient; see the test that names it.
        }
        for &statistic in objective.requirements().statistics {
            for (token, &cotangent) in cotangents.column(statistic).iter().enumerate() {
                if is_stopped(&*objective, &batch, statistic, token) {
                    prop_assert_eq!(cotangent, 0.0);
                    continue;
                }
                let loss = |value: f64| {
                    let mut moved = batch.clone();
                    moved.statistics.column_mut(statistic)[token] = value;
                    moved.evaluate(&*objective).loss
                };
                let value = batch.statistics.column(statistic)[token];
                // Where the loss turns within a step, a shorter one is needed.
                let agrees = [1e-3, 1e-4, 1e-5, 1e-6].into_iter().any(|share| {
                    let step = share * value.abs().min(1.0);
                    let error = (central_difference(loss, value, step) - cotangent).abs();
                    error <= 1e-6 * cotangent.abs() + rounding(magnitude, step)
                });
                prop_assert!(agrees, "{objective:?}, {statistic:?}, token {token}: cotangent {cotangent:e}, difference {:e}",
                    central_difference(loss, value, 1e-4));
            }
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_step(objective in objectives(), responses in responses(moderate())) {
        if objective.requirements().coupling == Coupling::Step {
            return Ok(()); // The step gathers such a batch before it evaluates; see the lake's properties.
        }
        let whole_batch = OwnedBatch::new(&objective.requirements(), &responses);
        let whole = whole_batch.evaluate(&*objective);
        let parts = split(&*objective, &responses, whole_batch.totals);
        let evaluations: Vec<_> = parts.iter().map(|part| part.evaluate(&*objective)).collect();

        let loss: f64 = evaluations.iter().map(|part| part.loss).sum();
        assert_close(&[loss], &[whole.loss], 1e-12, 1e-300, "loss");
        let pieces: Vec<_> = parts.iter().zip(&evaluations).flat_map(|(part, e)| by_response(part, e)).collect();
        let expected = by_response(&whole_batch, &whole);
        let half = responses.len() / 2;
        for (piece, cotangents) in pieces.iter().enumerate() {
            // Preferences come pair by pair: chosen and rejected take turns.
            let response = match objective.requirements().data {
                Data::Demonstrations => piece,
                Data::Preferences => piece / 2 + (piece % 2) * half,
            };
            assert_close(cotangents, &expected[response], 1e-12, 0.0, "cotangents");
        }
        let mut metrics = evaluations[0].metrics.clone();
        evaluations[1..].iter().for_each(|part| metrics.merge(&part.metrics));
        for ((name, ours), (_, theirs)) in metrics.iter().zip(whole.metrics.iter()) {
            assert_close(&[ours], &[theirs], 1e-12, 1e-12, name);
        }
    }

    #[test]
    fn the_order_of_responses_or_pairs_changes_nothing_else(objective in objectives(), responses in responses(moderate())) {
        let half = responses.len() / 2;
        let reversed: Vec<_> = responses[..half].iter().rev().chain(responses[half..].iter().rev()).cloned().collect();
        let batch = OwnedBatch::new(&objective.requirements(), &responses);
        let turned = OwnedBatch::new(&objective.requirements(), &reversed);
        let (evaluation, other) = (batch.evaluate(&*objective), turned.evaluate(&*objective));
        assert_close(&[other.loss], &[evaluation.loss], 1e-12, 1e-300, "loss");
        let mut cotangents = by_response(&turned, &other);
        cotangents[..half].reverse();
        cotangents[half..].reverse();
        for (ours, theirs) in cotangents.iter().zip(by_response(&batch, &evaluation)) {
            assert_close(ours, &theirs, 1e-12, 0.0, "cotangents");
        }
    }

    #[test]
    fn loss_and_cotangents_are_finite_wherever_log_probabilities_are(
        objective in objectives(), responses in responses(extreme()),
    ) {
        let evaluation = OwnedBatch::new(&objective.requirements(), &responses).evaluate(&*objective);
        prop_assert!(evaluation.loss.is_finite(), "{objective:?}: loss {}", evaluation.loss);
        for &statistic in objective.requirements().statistics {
            let cotangents = evaluation.cotangents.column(statistic);
            prop_assert!(cotangents.iter().all(|c| c.is_finite()), "{objective:?}: {statistic:?} {cotangents:?}");
        }
        prop_assert!(evaluation.metrics.iter().all(|(_, value)| value.is_finite()), "{:?}", evaluation);
    }

    #[test]
    fn dpo_is_ln_2_at_its_reference_and_antisymmetric(
        beta in 1e-3..50.0, smoothing in 0.0..=0.5, responses in responses(extreme()),
    ) {
        let dpo = Pairwise::new(Dpo::new(smoothing).unwrap(), beta, Score::LOG_RATIO).unwrap();
        let own: Vec<Tokens> = responses.iter().map(|r| r.iter().map(|t| Token { reference_log_prob: t.log_prob, ..*t }).collect()).collect();
        let batch = OwnedBatch::new(&dpo.requirements(), &own);
        let evaluation = batch.evaluate(&dpo);
        let pairs = batch.pairs.len() as f64;
        if batch.pairs.len().is_power_of_two() {
            prop_assert_eq!(evaluation.loss, std::f64::consts::LN_2);
        }
        prop_assert!((evaluation.loss - std::f64::consts::LN_2).abs() <= 2.0 * f64::EPSILON);
        let pull = beta * (smoothing - 0.5) / pairs;
        for (index, cotangents) in by_response(&batch, &evaluation).iter().enumerate() {
            let sign = if index < batch.pairs.len() { 1.0 } else { -1.0 };
            assert_close(cotangents, &vec![sign * pull; cotangents.len()], 1e-15, 0.0, "cotangents");
        }
    }

    #[test]
    fn swapping_chosen_and_rejected_turns_dpos_margin(beta in 1e-3..50.0, responses in responses(moderate())) {
        let dpo = Pairwise::new(Dpo::new(0.0).unwrap(), beta, Score::LOG_RATIO).unwrap();
        let half = responses.len() / 2;
        let swapped: Vec<_> = responses[half..].iter().chain(&responses[..half]).cloned().collect();
        let margin = |responses: &[Tokens]| {
            OwnedBatch::new(&dpo.requirements(), responses).evaluate(&dpo).metrics.mean(Metric::RewardMargin)
        };
        assert_close(&[margin(&swapped).unwrap()], &[-margin(&responses).unwrap()], 1e-12, 1e-12, "margin");
    }

    #[test]
    fn ift_without_propagation_is_sft_by_response(responses in responses(extreme())) {
        let ift = Ift::new(Lambda::constant(0.0), Freeze::None, Propagation::None).unwrap();
        let sft = Sft::new(Normalisation::Response, Weighting::None);
        let batch = OwnedBatch::new(&sft.requirements(), &responses);
        let (ours, theirs) = (batch.evaluate(&ift), batch.evaluate(&sft));
        assert_close(&[ours.loss], &[theirs.loss], 1e-14, 1e-300, "loss");
        assert_close(&ours.cotangents.log_prob, &theirs.cotangents.log_prob, 1e-14, 0.0, "cotangents");
    }

    #[test]
    fn the_losses_of_later_tokens_reach_earlier_ones(responses in responses(moderate()), gamma in 0.05..=1.0) {
        // The gradient passes through the weights: raising a later loss changes every earlier cotangent of `algorithm1`.
        let ift = Ift::new(Lambda::constant(0.0), Freeze::None, Propagation::Algorithm1 { gamma }).unwrap();
        let mut batch = OwnedBatch::new(&ift.requirements(), &responses[..1]);
        let before = batch.evaluate(&ift).cotangents.log_prob;
        let last = before.len() - 1;
        batch.statistics.log_prob[last] -= 1.0;
        let after = batch.evaluate(&ift).cotangents.log_prob;
        // ∂/∂lₜ gains γᴺ⁻ᵗ for every t before the last, where it gains 2.
        let gains: Vec<_> = (0..last).map(|t| -gamma.powi((last - t) as i32)).chain([-2.0]).collect();
        let differences: Vec<_> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        assert_close(&differences, &gains, 1e-9, 1e-9, "gain");
    }

    #[test]
    fn the_parameters_in_force_build_the_same_objective(objective in objectives()) {
        let debug = format!("{objective:?}");
        let rebuilt = METHODS.iter().filter_map(|method| registry::build(method.name, &objective.parameters()).ok());
        prop_assert!(rebuilt.into_iter().any(|rebuilt| format!("{rebuilt:?}") == debug), "{debug}");
    }
}

#[test]
fn orpo_is_finite_and_flat_in_the_odds_at_certainty() {
    let orpo = Pairwise::new(Orpo, 0.25, Orpo::SCORE).unwrap();
    for certain in [0.0, -5e-324, -1e-300, -2.0_f64.powi(-53)] {
        let batch = OwnedBatch::new(&orpo.requirements(), &[vec![Token::new(-1.0)], vec![Token::new(certain)]]);
        let evaluation = batch.evaluate(&orpo);
        assert!(evaluation.loss.is_finite());
        assert_eq!(evaluation.cotangents.log_prob[1], 0.0, "a stop-gradient on the odds at {certain:e}");
    }
}

#[test]
fn the_weights_of_dynamic_fine_tuning_pass_no_gradient() {
    let responses = [vec![Token::new(-0.5), Token::new(-2.0)], vec![Token::new(-1.0)]];
    for (normalisation, scales) in
        [(Normalisation::Token, [1.0 / 3.0; 3]), (Normalisation::Response, [0.25, 0.25, 0.5])]
    {
        let dft = Sft::new(normalisation, Weighting::Dft);
        let evaluation = OwnedBatch::new(&dft.requirements(), &responses).evaluate(&dft);
        let log_prob = [-0.5_f64, -2.0, -1.0];
        let expected: Vec<_> = log_prob.iter().zip(scales).map(|(log_prob, scale)| -scale * log_prob.exp()).collect();
        assert_close(&evaluation.cotangents.log_prob, &expected, 1e-15, 0.0, "cotangents");
        let loss: f64 = expected.iter().zip(log_prob).map(|(cotangent, log_prob)| cotangent * log_prob).sum();
        assert_close(&[evaluation.loss], &[loss], 1e-15, 0.0, "loss");
    }
}

#[test]
fn where_every_loss_is_zero_the_weights_of_ift_are_uniform() {
    for side in ["left", "right"] {
        let parameters = Parameters::from([("side".to_owned(), side.into())]);
        let ift = registry::build("ift", &parameters).unwrap();
        let certain = vec![Token::new(0.0); 4];
        let evaluation = OwnedBatch::new(&ift.requirements(), &[certain]).evaluate(&*ift);
        assert_eq!(evaluation.loss, 0.0);
        assert_eq!(evaluation.cotangents.log_prob, [-0.25; 4]);
    }
}

#[test]
fn every_default_is_within_its_range() {
    for method in METHODS {
        let objective = (method.build)(&objective::Parameters::new()).unwrap();
        for (name, value) in objective.parameters() {
            let declared = method.parameters.iter().find(|parameter| parameter.name == name).unwrap();
            if let Kind::Derived { .. } = declared.kind {
                continue;
            }
            assert_eq!(value, declared.default(), "{}.{name}", method.name);
        }
    }
}

//! What must hold for every objective, whatever its parameters and the batch.

use objective::dpo::Dpo;
use objective::ift::{Ift, Propagation};
use objective::orpo::Orpo;
use objective::sft::{Normalisation, Sft};
use objective::{Data, Evaluation, Freeze, METHODS, Objective, StepTotals, registry};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tests::{OwnedBatch, Tokens, assert_close, central_difference};

/// Every objective, with parameters over their whole ranges.
fn objectives() -> impl Strategy<Value = Box<dyn Objective>> {
    let gamma = prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0];
    let propagation = prop_oneof![
        gamma.clone().prop_map(|gamma| Propagation::Released { gamma }),
        gamma.prop_map(|gamma| Propagation::Algorithm1 { gamma }),
        Just(Propagation::Equation21),
        Just(Propagation::None),
    ];
    let beta = prop_oneof![Just(0.1), 1e-3..10.0];
    prop_oneof![
        select(vec![Normalisation::Token, Normalisation::Response])
            .prop_map(|n| Box::new(Sft::new(n)) as Box<dyn Objective>),
        (beta.clone(), 0.0..=0.5).prop_map(|(beta, smoothing)| Box::new(Dpo::new(beta, smoothing).unwrap()) as _),
        prop_oneof![Just(0.0), beta].prop_map(|beta| Box::new(Orpo::new(beta).unwrap()) as _),
        (0.0..=1.0, propagation)
            .prop_map(|(lambda, propagation)| Box::new(Ift::new(lambda, Freeze::None, propagation).unwrap()) as _),
    ]
}

/// An even number of ragged responses of 1 to 64 tokens.
fn responses(log_prob: impl Strategy<Value = f64> + Clone) -> impl Strategy<Value = Vec<Tokens>> {
    let response = vec((log_prob.clone(), log_prob), 1..=64);
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

proptest! {
    #[test]
    fn cotangents_are_the_central_differences_of_the_loss(objective in objectives(), responses in responses(moderate())) {
        let batch = OwnedBatch::new(&objective.requirements(), &responses);
        let cotangents = batch.evaluate(&*objective).cotangents.log_prob;
        for (token, &cotangent) in cotangents.iter().enumerate() {
            let loss = |log_prob: f64| {
                let mut moved = batch.clone();
                moved.statistics.log_prob[token] = log_prob;
                moved.evaluate(&*objective).loss
            };
            let log_prob = batch.statistics.log_prob[token];
            let (difference, rounding) = central_difference(loss, log_prob, 1e-3 * log_prob.abs().min(1.0));
            let error = (difference - cotangent).abs();
            prop_assert!(error <= 1e-6 * cotangent.abs() + rounding,
                "{objective:?}, token {token}: cotangent {cotangent:e}, difference {difference:e}");
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_step(objective in objectives(), responses in responses(moderate())) {
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
        prop_assert_eq!(cotangents, by_response(&batch, &evaluation));
    }

    #[test]
    fn loss_and_cotangents_are_finite_wherever_log_probabilities_are(
        objective in objectives(), responses in responses(extreme()),
    ) {
        let evaluation = OwnedBatch::new(&objective.requirements(), &responses).evaluate(&*objective);
        prop_assert!(evaluation.loss.is_finite() && evaluation.loss >= 0.0, "{objective:?}: loss {}", evaluation.loss);
        prop_assert!(evaluation.cotangents.log_prob.iter().all(|c| c.is_finite()), "{:?}", evaluation);
        prop_assert!(evaluation.metrics.iter().all(|(_, value)| value.is_finite()), "{:?}", evaluation);
    }

    #[test]
    fn dpo_is_ln_2_at_its_reference_and_antisymmetric(
        beta in 1e-3..50.0, smoothing in 0.0..=0.5, responses in responses(extreme()),
    ) {
        let dpo = Dpo::new(beta, smoothing).unwrap();
        let own: Vec<Tokens> = responses.iter().map(|r| r.iter().map(|&(policy, _)| (policy, policy)).collect()).collect();
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
        let dpo = Dpo::new(beta, 0.0).unwrap();
        let half = responses.len() / 2;
        let swapped: Vec<_> = responses[half..].iter().chain(&responses[..half]).cloned().collect();
        let margin = |responses: &[Tokens]| {
            OwnedBatch::new(&dpo.requirements(), responses).evaluate(&dpo).metrics.mean(objective::Metric::RewardMargin)
        };
        assert_close(&[margin(&swapped).unwrap()], &[-margin(&responses).unwrap()], 1e-12, 1e-12, "margin");
    }

    #[test]
    fn ift_without_propagation_is_sft_by_response(responses in responses(extreme())) {
        let ift = Ift::new(0.0, Freeze::None, Propagation::None).unwrap();
        let sft = Sft::new(Normalisation::Response);
        let batch = OwnedBatch::new(&sft.requirements(), &responses);
        let (ours, theirs) = (batch.evaluate(&ift), batch.evaluate(&sft));
        assert_close(&[ours.loss], &[theirs.loss], 1e-14, 1e-300, "loss");
        assert_close(&ours.cotangents.log_prob, &theirs.cotangents.log_prob, 1e-14, 0.0, "cotangents");
    }

    #[test]
    fn the_losses_of_later_tokens_reach_earlier_ones(responses in responses(moderate()), gamma in 0.05..=1.0) {
        // The gradient passes through the weights: raising a later loss changes every earlier cotangent of `algorithm1`.
        let ift = Ift::new(0.0, Freeze::None, Propagation::Algorithm1 { gamma }).unwrap();
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
    let orpo = Orpo::new(0.25).unwrap();
    for certain in [0.0, -5e-324, -1e-300, -2.0_f64.powi(-53)] {
        let batch = OwnedBatch::new(&orpo.requirements(), &[vec![(-1.0, 0.0)], vec![(certain, 0.0)]]);
        let evaluation = batch.evaluate(&orpo);
        assert!(evaluation.loss.is_finite());
        assert_eq!(evaluation.cotangents.log_prob[1], 0.0, "a stop-gradient on the odds at {certain:e}");
    }
}

#[test]
fn an_empty_response_is_an_error() {
    let sft = Sft::new(Normalisation::Token);
    let batch = OwnedBatch::new(&sft.requirements(), &[vec![(-1.0, 0.0)], vec![]]);
    let OwnedBatch { statistics, constants, responses, pairs, totals } = &batch;
    let error = objective::TokenBatch::new(&sft.requirements(), statistics, constants, responses, pairs, *totals);
    assert_eq!(error.unwrap_err().to_string(), "response 1: at least one token is needed, got none");
}

#[test]
fn every_default_is_within_its_range() {
    for method in METHODS {
        let objective = (method.build)(&objective::Parameters::new()).unwrap();
        for (name, value) in objective.parameters() {
            let declared = method.parameters.iter().find(|parameter| parameter.name == name).unwrap();
            assert_eq!(value, declared.default(), "{}.{name}", method.name);
        }
    }
}

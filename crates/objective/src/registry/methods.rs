//! The list of methods.

use crate::losses::*;
use crate::method::Method;
use crate::parameter::Registered;
use crate::policy_gradient::presets;

/// Every method, in the order of `--method all`.
pub static METHODS: &[Method] = &{
    let mut all = [PREFERENCES[0]; PREFERENCES.len() + presets::METHODS.len()];
    let mut place = 0;
    while place < all.len() {
        all[place] = match place < PREFERENCES.len() {
            true => PREFERENCES[place],
            false => presets::METHODS[place - PREFERENCES.len()],
        };
        place += 1;
    }
    all
};

/// The methods that are not policy gradients.
const PREFERENCES: &[Method] = &[
    Sft::METHOD,
    Dpo::METHOD,
    Orpo::METHOD,
    Simpo::METHOD,
    Tdpo::METHOD,
    Ift::METHOD,
    OnlineDpo::METHOD,
    Hinge::METHOD,
    Ipo::METHOD,
    Robust::METHOD,
    ExoPair::METHOD,
    NcaPair::METHOD,
    BcoPair::METHOD,
    SppoHard::METHOD,
    Aot::METHOD,
    AotUnpaired::METHOD,
    ApoZero::METHOD,
    ApoDown::METHOD,
    Discopop::METHOD,
    SigmoidNorm::METHOD,
    Cpo::METHOD,
    AlphaPo::METHOD,
    Dpop::METHOD,
    Kto::METHOD,
    ApoZeroUnpaired::METHOD,
    Bco::METHOD,
    Distillation::METHOD,
    IwOpd::METHOD,
    WeightedSum::METHOD,
];

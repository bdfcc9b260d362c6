//! The objectives other than policy gradients, one file each, and code that they share. [`dpo`] is a good first one to
//! read: a loss on the margin of a pair.

pub(crate) mod a2po;
pub(crate) mod alphapo;
pub(crate) mod apo_down;
pub(crate) mod apo_zero;
pub(crate) mod apo_zero_unpaired;
pub(crate) mod bco;
pub(crate) mod bco_pair;
pub(crate) mod cpo;
pub(crate) mod discopop;
pub(crate) mod distillation;
pub(crate) mod divergence;
pub(crate) mod dpo;
pub(crate) mod dpop;
pub(crate) mod exo_pair;
pub(crate) mod hinge;
pub(crate) mod ift;
pub(crate) mod ipo;
pub(crate) mod iw_opd;
pub(crate) mod kto;
pub(crate) mod labelled;
pub(crate) mod nca_pair;
pub(crate) mod online_dpo;
pub(crate) mod orpo;
pub(crate) mod preference;
pub(crate) mod propagation;
pub(crate) mod reward_model;
pub(crate) mod robust;
pub(crate) mod sft;
pub(crate) mod sigmoid_norm;
pub(crate) mod simpo;
pub(crate) mod sppo_hard;
pub(crate) mod tdpo;
pub(crate) mod transport;
pub(crate) mod weighted_sum;

pub use self::a2po::A2po;
pub use self::alphapo::AlphaPo;
pub use self::apo_down::ApoDown;
pub use self::apo_zero::ApoZero;
pub use self::apo_zero_unpaired::ApoZeroUnpaired;
pub use self::bco::Bco;
pub use self::bco_pair::BcoPair;
pub use self::cpo::{ContrastiveLoss, Cpo};
pub use self::discopop::Discopop;
pub use self::distillation::{Distillation, DistillationDivergence, DistillationResponses};
pub use self::divergence::Divergence;
pub use self::dpo::Dpo;
pub use self::dpop::Dpop;
pub use self::exo_pair::ExoPair;
pub use self::hinge::Hinge;
pub use self::ift::{Ift, Propagation};
pub use self::ipo::Ipo;
pub use self::iw_opd::IwOpd;
pub use self::kto::Kto;
pub use self::labelled::mismatches;
pub use self::nca_pair::NcaPair;
pub use self::online_dpo::OnlineDpo;
pub use self::orpo::Orpo;
pub use self::preference::{PairWeighting, Reduction};
pub use self::propagation::{Item as PropagationItem, Norm as PropagationNorm, Side as PropagationSide};
pub use self::reward_model::RewardModel;
pub use self::robust::Robust;
pub use self::sft::{Normalisation, Sft, TokenWeighting};
pub use self::sigmoid_norm::SigmoidNorm;
pub use self::simpo::Simpo;
pub use self::sppo_hard::SppoHard;
pub use self::tdpo::{Tdpo, TdpoVariant};
pub use self::transport::{Aot, AotUnpaired};
pub use self::weighted_sum::{Term, WeightedSum};

/// Implements [`Objective`](crate::Objective) with the functions that all losses of a form share.
macro_rules! implement {
    ($type:ty, $form:ident, $data:ident) => {
        #[automatically_derived]
        impl $crate::LearnsFrom for $type {
            type Data<'a> = $crate::$data<'a>;
        }

        #[automatically_derived]
        impl $crate::Objective for $type {
            fn requirements(&self) -> $crate::Requirements {
                $crate::losses::$form::requirements(self)
            }

            $crate::declared_parameters!();

            fn hold(
                &self,
                batch: &$crate::TokenBatch<'_>,
                state: &mut $crate::ObjectiveState,
                held: &mut $crate::Held,
            ) {
                $crate::losses::$form::hold(self, batch, state, held);
            }

            fn loss(&self, batch: &$crate::TokenBatch<'_>, held: &$crate::Held, out: &mut $crate::Evaluation) {
                $crate::losses::$form::loss(self, batch, held, out);
            }
        }
    };
}
pub(crate) use implement;

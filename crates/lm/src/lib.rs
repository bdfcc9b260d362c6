//! Fine-tunes Hugging Face language models with the alignment objectives.
//!
//! | to find | look in |
//! |---|---|
//! | a model's shape, its weights as files, and what it computes | [`config`], [`weights`], [`model`] |
//! | low-rank adapters, as PEFT's files, and added to their model | [`lora`], [`adapter`], [`mod@merge`] |
//! | hidden states to statistics of tokens, and back | [`head`] |
//! | sequences as tensors, the policy that objectives train, its optimizer | [`batch`], [`policy`], [`optimizer`] |
//! | how prompts go on | [`mod@generate`] |
//! | a model that answers over HTTP | [`mod@serve`] |
//! | records as micro-batches, what their reference says | [`micro_batch`], [`mod@reference`] |
//! | what to train, and the run | [`recipe`], [`run`] |
//! | several processes of one run | [`ranks`] |
//! | what a run goes on from, what it shows | [`checkpoint`], [`tensorboard`] |
//! | how probable responses are | [`mod@score`] |
//! | where a model comes from, and where it computes | [`folder`], [`device`] |
//! | the tokens that end a response, and sampling defaults | [`generation_config`] |
//! | what fits in memory | [`memory`], [`inspection`] |
//! | why something was refused | [`error`] |

pub mod adapter;
pub mod batch;
pub mod checkpoint;
pub mod config;
mod cuda;
pub mod device;
pub mod error;
mod finite;
pub mod folder;
pub mod generate;
pub mod generation_config;
pub mod head;
pub mod inspection;
pub mod lora;
pub mod memory;
pub mod merge;
pub mod micro_batch;
pub mod model;
pub mod optimizer;
pub mod policy;
pub mod ranks;
pub mod recipe;
pub mod reference;
pub mod run;
pub mod score;
pub mod serve;
pub mod teacher;
pub mod tensorboard;
pub mod weights;

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
//! | what models answer to instructions, and which is preferred | [`outputs`], [`mod@judge`] |
//! | how probable responses are | [`mod@score`] |
//! | where a model comes from, and where it computes | [`folder`], [`device`] |
//! | the tokens that end a response, and sampling defaults | [`generation_config`] |
//! | results of lm-evaluation-harness side by side | [`compare`] |
//! | what fits in memory | [`memory`], [`inspection`] |
//! | text to tokens | [`tokens`] |
//! | conversations to text | [`chat`], [`python_json`] |
//! | data and prompts as JSON lines or Parquet | [`data`] |
//! | tokens of a prompt and its response | [`example`] |
//! | the order of several data sets | [`mixture`] |
//! | why something was refused | [`error`] |

pub mod adapter;
mod asked;
pub mod batch;
pub mod chat;
pub mod checkpoint;
pub mod compare;
pub mod config;
mod cuda;
pub mod data;
pub mod device;
pub mod error;
pub mod example;
mod finite;
pub mod folder;
pub mod generate;
pub mod generation_config;
pub mod head;
pub mod inspection;
mod json;
pub mod judge;
pub mod lora;
pub mod memory;
pub mod merge;
pub mod micro_batch;
pub mod mixture;
pub mod model;
pub mod optimizer;
pub mod outputs;
pub mod policy;
pub mod python_json;
mod random;
pub mod ranks;
pub mod recipe;
pub mod reference;
pub mod run;
pub mod score;
pub mod serve;
pub mod teacher;
pub mod tensorboard;
pub mod tokens;
pub mod weights;

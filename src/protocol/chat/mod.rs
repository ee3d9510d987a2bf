//! OpenAI's chat completions, completions and embeddings.

pub mod answer;
pub mod edit;
pub mod request;

//! Which members of a body a provider may not be sent, and which change what its answer costs: the defaults for the kind
//! of its host, and what its section says.
//!
//! Start reading in [`body_rules`].

use std::sync::Arc;

use super::super::catalogue::PriceCatalogue;
use super::super::reader::Setting;
use super::super::sections::ProviderSection;
use super::super::settings::ProtocolName;
use super::super::value::BodyMemberName;
use crate::domain::body_member::BodyRules;

/// By this, programs in JavaScript that copy a body may take any other member from it.
const ANY_OTHER: &str = "__proto__";

/// By these, hosts that pass requests on (other gateways, markets of models) choose the model, the host or the
/// credential: no key's policy and no budget would count.
const CHOOSE_A_HOST: [&str; 50] = [
    // LoRAX: the adapter that is loaded from a hub.
    "adapter_id",
    // MLX: the path of an adapter, and a model that is loaded beside this one.
    "adapters",
    "api_base",
    "api_key",
    "api_type",
    "api_version",
    "aws_access_key_id",
    "aws_bedrock_runtime_endpoint",
    "aws_profile_name",
    "aws_region_name",
    "aws_role_name",
    "aws_secret_access_key",
    "aws_session_name",
    "aws_session_token",
    "aws_sts_endpoint",
    "aws_web_identity_token",
    "azure_ad_token",
    "base_url",
    // SGLang: the server from which the prefilled part of an answer is fetched.
    "bootstrap_host",
    "bootstrap_port",
    "client_secret",
    "content_policy_fallbacks",
    "context_window_fallback_dict",
    "context_window_fallbacks",
    "custom_llm_provider",
    "default_fallbacks",
    "deployment_id",
    // TensorRT-LLM: as `bootstrap_host`.
    "disaggregated_params",
    "draft_model",
    "endpoint",
    "extra_headers",
    "fallback",
    "fallbacks",
    // vLLM: as `bootstrap_host`.
    "kv_transfer_params",
    // SGLang and TensorRT-LLM: the adapter that answers.
    "lora_path",
    "lora_request",
    "model_list",
    "models",
    "organization",
    "preset",
    "provider",
    "provideroptions",
    "providers",
    "region_name",
    "route",
    "routing",
    "user_config",
    "vertex_credentials",
    "vertex_location",
    "vertex_project",
];

/// These change what an answer costs, by a factor or by the search, the file or the conversation that is added to it.
const CHANGE_THE_PRICE: [&str; 27] = [
    "cached_content",
    // Groq: the models and tools that answer together.
    "compound_custom",
    "container",
    "context_management",
    "conversation",
    "conversation_id",
    "data_sources",
    // Azure's first name of `data_sources`.
    "datasources",
    // xAI: the answer is fetched later, from the host itself: what it cost is not seen.
    "deferred",
    "enable_search",
    // Azure: what else looks at an image.
    "enhancements",
    "extra_body",
    "file_ids",
    "inference_geo",
    "mcp_servers",
    "plugins",
    "previous_response_id",
    // Together: another model reads the input and the answer.
    "safety_model",
    "search_options",
    "search_parameters",
    "search_type",
    "service_tier",
    // SGLang: as `conversation`.
    "session_params",
    "speed",
    "tools[].type",
    "web_search",
    "web_search_options",
];

/// By these, Anthropic's API answers with another model than was asked for, or goes on with what is kept under an id at
/// the account that all keys share.
const BEYOND_THE_KEY: [&str; 3] = ["container", "fallbacks", "thread"];

/// By these, some host writes more or longer answers than `max_tokens`, `max_completion_tokens`, `n` and `best_of` say,
/// which is what is held for. What stays below the ceiling is not here: `min_tokens` and `ignore_eos` (vLLM, SGLang)
/// lengthen an answer up to it, `use_beam_search` (vLLM, OpenVINO) follows `n` or `best_of`, and `n_probs` (llama.cpp)
/// and `prompt_logprobs` (vLLM) add no tokens.
const WRITE_MORE: [&str; 19] = [
    // text-generation-webui: all that the context leaves, whatever `max_tokens` says.
    "auto_max_new_tokens",
    // Gemini's names of `n`, which gateways pass on.
    "candidate_count",
    "candidatecount",
    // Transformers' and Gemini's objects with a ceiling and a number of answers of their own.
    "generation_config",
    "generationconfig",
    // Names of the ceiling: of KoboldCpp and TabbyAPI, of Hugging Face's servers, of Gemini and OpenAI's Responses.
    "max_length",
    "max_new_tokens",
    "max_output_tokens",
    "maxoutputtokens",
    // llama.cpp: go before `n` and `max_tokens`.
    "n_cmpl",
    "n_predict",
    // Ollama's ceiling, which gateways pass on by itself or inside `options`.
    "num_predict",
    "options",
    // Cohere's and Hugging Face's names of `n`.
    "num_generations",
    "num_return_sequences",
    // NVIDIA's NIM and Dynamo: an object of further settings.
    "nvext",
    // Hugging Face's object of all settings.
    "parameters",
    // OpenAI, Azure, Fireworks: predicted tokens that are not in the answer are paid for like those that are.
    "prediction",
    // SGLang's object of all settings.
    "sampling_params",
];

/// The rules of `provider`. A simulated one knows no other member than the gateway.
pub(super) fn body_rules(provider: &ProviderSection, catalogue: &PriceCatalogue) -> BodyRules {
    let Some(network) = &provider.network else { return BodyRules::default() };
    // A host that nobody knows may pass requests on.
    let passes_on = network.base_url.as_ref().is_none_or(|base_url| {
        let known = catalogue.hosts_at(&base_url.value.0);
        known.is_empty() || known.iter().any(|host| host.quirks.passes_on == Some(true))
    });
    let own = |list: &Option<Vec<Setting<BodyMemberName>>>| -> Vec<Arc<str>> {
        list.iter().flatten().map(|name| name.value.0.clone()).collect()
    };
    let (allowed, denied) = (own(&network.body_allow), own(&network.body_deny));
    let defaults = |list: &[&str]| -> Vec<Arc<str>> {
        let names = list.iter().map(|name| Arc::from(*name));
        names.filter(|name| !allowed.contains(name) && !denied.contains(name)).collect()
    };
    let priced = [defaults(&CHANGE_THE_PRICE), defaults(&WRITE_MORE)].concat();
    let mut all_denied = if passes_on { defaults(&CHOOSE_A_HOST) } else { Vec::new() };
    all_denied.extend(defaults(&[ANY_OTHER]));
    let is_anthropic = provider.common.protocol.as_ref().is_some_and(|one| one.value == ProtocolName::Anthropic);
    if is_anthropic {
        all_denied.extend(defaults(&BEYOND_THE_KEY));
    }
    all_denied.extend(denied);
    BodyRules { denied: all_denied, priced }
}

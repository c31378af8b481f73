//! Fields that OpenAI or vLLM serve and Pyrex does not: refused as such, rather than as names that nobody knows.
//!
//! `name: value` is a field that may have this value, because it asks for nothing.

/// Of the body: OpenAI's, then vLLM's.
pub(crate) const BODY: &[&str] = &[
    "audio",
    "echo: false",
    "function_call",
    "functions",
    "metadata",
    "modalities: [\"text\"]",
    "moderation",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier: \"auto\"",
    "store: false",
    "suffix",
    "verbosity",
    "web_search_options",
    "add_special_tokens",
    "allowed_token_ids",
    "bad_words: []",
    "chat_template",
    "continue_final_message: false",
    "documents",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "include_reasoning",
    "include_stop_str_in_output: false",
    "kv_transfer_params",
    "length_penalty",
    "logits_processors",
    "mm_processor_kwargs",
    "prompt_embeds",
    "prompt_logprobs",
    "request_id",
    "return_token_ids: false",
    "return_tokens_as_token_ids: false",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "use_beam_search: false",
    "vllm_xargs",
];

/// Of `stream_options`.
pub(crate) const STREAM_OPTIONS: &[&str] = &["include_obfuscation: false", "continuous_usage_stats: false"];

/// Of a message: what an answer of OpenAI's has beside its text, and so may come back in the next request.
pub(crate) const MESSAGE: &[&str] = &["annotations: []", "audio", "function_call", "refusal"];

/// Of `structured_outputs`.
pub(crate) const STRUCTURED_OUTPUTS: &[&str] = &[
    "choice",
    "disable_additional_properties: false",
    "disable_any_whitespace: false",
    "disable_fallback: false",
    "json_object",
    "structural_tag",
    "whitespace_pattern",
];

/// Of the body of a response: OpenAI's.
pub(crate) const RESPONSE: &[&str] = &[
    "background: false",
    "context_management",
    "conversation",
    "include: []",
    "max_tool_calls",
    "metadata: {}",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier: \"auto\"",
    "store: false",
    "top_logprobs: 0",
    "truncation: \"disabled\"",
];

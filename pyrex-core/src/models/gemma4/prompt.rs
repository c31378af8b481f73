//! Template, soft-token budget, placeholders.

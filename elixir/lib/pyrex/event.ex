defmodule Pyrex.Event do
  @moduledoc """
  What happens to a request, in order. Exactly one of `:finished` and `:failed` comes, and it comes last.

    * `{:started, prompt_token_ids, image_tokens}`: the prompt is encoded and waits for its turn
    * `{:token, index, token_id, text, logprobs, finish}`: one token was chosen for the answer `index`. The text is what is now
      certain: often empty, never half a character. `logprobs` is `nil` or `{logprob, [{token_id, logprob}]}`, `finish` is
      `nil`, `:stop` or `:length`
    * `{:finished, reason, usage, timings}`: maps with the fields of `t:usage/0` and `t:timings/0`
    * `{:failed, error}`
  """

  @type finish_reason :: :stop | :length
  @type logprobs :: nil | {float, [{non_neg_integer, float}]}

  @type usage :: %{
          prompt_tokens: non_neg_integer,
          image_tokens: non_neg_integer,
          cached_tokens: non_neg_integer,
          completion_tokens: non_neg_integer
        }

  @typedoc "Milliseconds as the engine measured them."
  @type timings :: %{
          load_ms: float,
          preprocess_ms: float,
          queue_ms: float,
          encode_images_ms: float,
          prefill_ms: float,
          decode_ms: float,
          ttft_ms: float
        }

  @type t ::
          {:started, [non_neg_integer], non_neg_integer}
          | {:token, non_neg_integer, non_neg_integer, String.t(), logprobs, nil | finish_reason}
          | {:finished, finish_reason, usage, timings}
          | {:failed, Pyrex.Error.t()}
          | written

  @typedoc "What `Pyrex.Plug` sends, and nobody else sees: status, media type and bytes. Stands before the events it is made of."
  @type written :: {:written, pos_integer, String.t(), binary}

  @doc "Whether nothing comes after it."
  @spec final?(t) :: boolean
  def final?({:finished, _reason, _usage, _timings}), do: true
  def final?({:failed, _error}), do: true
  def final?(_event), do: false

  @doc false
  @spec token?(t) :: boolean
  def token?({:token, _index, _token_id, _text, _logprobs, _finish}), do: true
  def token?(_event), do: false

  @doc false
  @spec written?(t) :: boolean
  def written?({:written, _status, _type, _bytes}), do: true
  def written?(_event), do: false

  @doc false
  @spec from_native(tuple) :: t
  def from_native({:failed, error}), do: {:failed, Pyrex.Error.from_native(error)}
  def from_native(event), do: event
end

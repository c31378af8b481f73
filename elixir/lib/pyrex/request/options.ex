defmodule Pyrex.Request.Options do
  @moduledoc """
  How an answer is chosen, when it ends, and who asks. Greedy decoding until the model stops unless told otherwise.

  ## Choosing

    * `:temperature`: divides the logits; 0 always takes the likeliest token
    * `:top_k`, `:top_p`, `:min_p`: keep the `k` likeliest, the likeliest up to a mass, those at least so likely
    * `:repetition_penalty`, `:presence_penalty`, `:frequency_penalty`
    * `:logit_bias`: `[{token_id, bias}]`
    * `:seed`: the tokens depend on it and on their positions alone
    * `:schema`: a JSON schema, as a map or as text; the decoded answer is then `result.object`
    * `:regex`, `:grammar`: a regular expression, or a grammar in the notation of Lark, that the answer keeps to

  ## Ending

    * `:max_tokens`, `:min_tokens`
    * `:stop`: texts that end the answer and are not part of it; `:stop_token_ids` likewise
    * `:ignore_eos`: go on past the model's stop tokens
    * `:timeout_ms`: the request fails with `:deadline_exceeded` after that, wherever it is

  ## Telling

    * `:logprobs`: 0 for that of each token, up to 20 for so many alternatives
    * `:n`: how many answers, see `Pyrex.Result`

  ## Asking

    * `:priority`: -128 to 127, higher is served first
    * `:cache_salt`: only requests of the same salt share computed prefixes
    * `:tenant`: whom the request is counted for, any term
    * `:group`: requests of a group are cancelled together by `Pyrex.cancel_group/2`; a pid cancels them when it dies
    * `:tools`, `:variables`: of the chat template, a list of maps and a map
    * `:affinity`: requests of the same term prefer the same node of a cluster
  """

  alias Pyrex.{Check, Error, JSON}

  @u32 0xFFFFFFFF
  @token_id {:integer, 0, @u32}
  @penalty {:number, -2, 2}

  @native [
    temperature: {nil, {:number, 0, 1_000_000}},
    top_k: {nil, {:integer, 1, @u32}},
    top_p: {nil, {:above, 0, 1}},
    min_p: {nil, {:number, 0, 1}},
    repetition_penalty: {nil, {:above, 0, 1_000_000}},
    presence_penalty: {nil, @penalty},
    frequency_penalty: {nil, @penalty},
    logit_bias: {[], {:list, {:pair, @token_id, {:number, -100, 100}}, 4096}},
    seed: {nil, {:integer, 0, 0xFFFFFFFFFFFFFFFF}},
    min_tokens: {nil, {:integer, 0, @u32}},
    max_tokens: {nil, {:integer, 1, @u32}},
    stop: {[], {:list, :string, 64}},
    stop_token_ids: {[], {:list, @token_id, 1024}},
    ignore_eos: {false, :boolean},
    logprobs: {nil, {:integer, 0, 20}},
    n: {1, {:integer, 1, 65_536}},
    priority: {0, {:integer, -128, 127}},
    timeout_ms: {nil, {:integer, 1, 86_400_000}},
    cache_salt: {nil, :string}
  ]

  @own [
    schema: {nil, :any},
    regex: {nil, :string},
    grammar: {nil, :string},
    tenant: {nil, :any},
    group: {nil, :any},
    tools: {[], {:list, :any, 4096}},
    variables: {%{}, :any},
    affinity: {nil, :any}
  ]

  @fields for {name, {default, type}} <- @native ++ @own, do: {name, default, type}
  @floats [:temperature, :top_p, :min_p, :repetition_penalty, :presence_penalty, :frequency_penalty]

  defstruct [:constraint | for({name, default, _type} <- @fields, do: {name, default})]

  @type t :: %__MODULE__{
          constraint: nil | {:json_schema | :regex | :lark, String.t()},
          temperature: nil | number,
          top_k: nil | pos_integer,
          top_p: nil | number,
          min_p: nil | number,
          repetition_penalty: nil | number,
          presence_penalty: nil | number,
          frequency_penalty: nil | number,
          logit_bias: [{non_neg_integer, number}],
          seed: nil | non_neg_integer,
          min_tokens: nil | non_neg_integer,
          max_tokens: nil | pos_integer,
          stop: [String.t()],
          stop_token_ids: [non_neg_integer],
          ignore_eos: boolean,
          logprobs: nil | 0..20,
          n: pos_integer,
          priority: -128..127,
          timeout_ms: nil | pos_integer,
          cache_salt: nil | String.t(),
          schema: nil | map | keyword | String.t(),
          regex: nil | String.t(),
          grammar: nil | String.t(),
          tenant: term,
          group: term,
          tools: [map],
          variables: map,
          affinity: term
        }

  @doc """
  Checks the options.

      iex> {:error, error} = Pyrex.Request.Options.new(top_p: 0)
      iex> error.message
      "top_p is 0, expected a number above 0 and up to 1"
  """
  @spec new(keyword) :: {:ok, t} | {:error, Error.t()}
  def new(options) do
    with {:ok, options} <- Check.options(options, @fields),
         {:ok, constraint} <- constraint(options) do
      {:ok, struct!(__MODULE__, Map.put(options, :constraint, constraint))}
    end
  end

  @doc "The names of the options, in the order of the documentation."
  @spec names() :: [atom]
  def names, do: Enum.map(@fields, &elem(&1, 0))

  @doc false
  @spec to_native(t) :: map
  def to_native(%__MODULE__{} = options) do
    native = Map.take(options, [:constraint | Keyword.keys(@native)])
    floats = for name <- @floats, number = Map.fetch!(native, name), into: %{}, do: {name, number * 1.0}
    biases = for {token_id, bias} <- native.logit_bias, do: {token_id, bias * 1.0}
    native |> Map.merge(floats) |> Map.put(:logit_bias, biases)
  end

  defp constraint(%{schema: schema, regex: regex, grammar: grammar}) do
    given =
      for {kind, value} when not is_nil(value) <- [json_schema: schema, regex: regex, lark: grammar],
          do: {kind, value}

    case given do
      [] ->
        {:ok, nil}

      [{:json_schema, schema}] ->
        json_schema(schema)

      [constraint] ->
        {:ok, constraint}

      _several ->
        Check.invalid("schema, regex and grammar are #{length(given)} constraints, expected at most one")
    end
  end

  defp json_schema(schema) when is_map(schema) or is_list(schema) do
    case JSON.encode(schema) do
      {:ok, text} -> {:ok, {:json_schema, text}}
      {:error, reason} -> Check.invalid("schema holds #{reason}, expected what JSON can say")
    end
  end

  defp json_schema(text) when is_binary(text) do
    case JSON.decode(text) do
      {:ok, _schema} -> {:ok, {:json_schema, text}}
      {:error, reason} -> Check.invalid("schema is no JSON: #{reason}")
    end
  end

  defp json_schema(other), do: Check.invalid("schema is #{Check.show(other)}, expected a map or JSON text")
end

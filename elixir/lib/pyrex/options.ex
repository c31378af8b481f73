defmodule Pyrex.Options do
  @moduledoc """
  How an engine is opened, and how its processes behave. Checked before any process starts.

  ## The engine

    * `:model` (required): the folder of a checkpoint
    * `:device`: `"cpu"`, `"cuda"` or `"cuda:1"`; the CPU unless given
    * `:dtype`: of the activations, `:f32` or `:bf16`; f32 on the CPU and bf16 on CUDA unless given
    * `:vision_dtype`: of the vision tower's activations, `:f32`, or `:bf16`, which is faster on a GPU and less exact; `:f32`
    * `:tables`: where tables lie of which single rows are read, such as the per-layer embeddings: `:device`, or `:host` to spare
      memory of a GPU; `:device`
    * `:num_threads`: that compute; as many as the machine has cores unless given
    * `:max_model_len`: the longest sequence, prompt and answer together; the model's own limit or 8192, whichever is less
    * `:max_batch_tokens`: the most tokens one step computes; 512 on the CPU and 2048 on CUDA
    * `:max_sequences`: the most sequences one step computes; 16 on the CPU and 64 on CUDA
    * `:max_waiting`: the most requests that wait, one more is `:overloaded`; 1024
    * `:max_events`: how many events of one request wait to be read before it pauses; 256
    * `:kv_cache`: `{:bytes, n}` or `{:fraction, f}` of the memory that is free once the model is loaded
    * `:prefix_cache`: whether prompts that begin alike share what is computed; `true`
    * `:reader_timeout_ms`: how long a paused request keeps its cache blocks; 1000
    * `:stuck_after_ms`: how long one step may run before the engine says that it is stuck; 120 000

  ## The processes

    * `:name`: an atom that callers use; `Pyrex` unless given
    * `:open_timeout_ms`: how long the first opening may take; `:infinity`
    * `:max_restarts`, `:max_seconds`: the supervisor gives up when an engine dies more often than that; 2 in 60
    * `:backoff_ms`, `:max_backoff_ms`: the pause before an engine is opened again, doubled each time; 100 up to 5000
    * `:drain_timeout_ms`: how long live requests may go on when the engine is stopped or swapped; 30 000
    * `:max_per_caller`, `:max_per_tenant`: the most requests a process, or a tenant, may have under way; no limit
    * `:telemetry`: a function of event, measurements and metadata; see `Pyrex.Telemetry`
    * `:cluster`: whether callers on other nodes may find the engine; `false`. See `Pyrex.Cluster`
  """

  alias Pyrex.{Check, Error}

  @u32 0xFFFFFFFF
  @day_ms 86_400_000

  @native [
    model: {nil, {:either, [:string, {:pair, {:literal, :scripted}, :any}]}},
    device: {nil, :string},
    dtype: {nil, {:one_of, [:f32, :bf16]}},
    vision_dtype: {nil, {:one_of, [:f32, :bf16]}},
    tables: {nil, {:one_of, [:device, :host]}},
    num_threads: {nil, {:integer, 1, 1024}},
    max_model_len: {nil, {:integer, 1, @u32}},
    max_batch_tokens: {nil, {:integer, 1, 1_048_576}},
    max_sequences: {nil, {:integer, 1, 65_536}},
    max_waiting: {nil, {:integer, 1, @u32}},
    max_events: {nil, {:integer, 1, 1_048_576}},
    kv_cache:
      {nil,
       {:either,
        [
          {:pair, {:literal, :bytes}, {:integer, 1, 0xFFFFFFFFFFFF}},
          {:pair, {:literal, :fraction}, {:above, 0, 1}}
        ]}},
    prefix_cache: {true, :boolean},
    reader_timeout_ms: {nil, {:integer, 0, @day_ms}},
    stuck_after_ms: {nil, {:integer, 1, @day_ms}}
  ]

  @own [
    name: {Pyrex, :atom},
    open_timeout_ms: {:infinity, {:either, [{:integer, 1, @day_ms}, {:literal, :infinity}]}},
    max_restarts: {2, {:integer, 0, 1_000_000}},
    max_seconds: {60, {:integer, 1, 1_000_000}},
    backoff_ms: {100, {:integer, 0, @day_ms}},
    max_backoff_ms: {5_000, {:integer, 0, @day_ms}},
    drain_timeout_ms: {30_000, {:integer, 0, @day_ms}},
    max_per_caller: {nil, {:integer, 1, @u32}},
    max_per_tenant: {nil, {:integer, 1, @u32}},
    telemetry: {nil, {:function, 3}},
    cluster: {false, :boolean}
  ]

  @fields for {name, {default, type}} <- @native ++ @own, do: {name, default, type}

  defstruct for {name, default, _type} <- @fields, do: {name, default}

  @type t :: %__MODULE__{
          model: String.t() | {:scripted, map},
          device: nil | String.t(),
          dtype: nil | :f32 | :bf16,
          vision_dtype: nil | :f32 | :bf16,
          tables: nil | :device | :host,
          num_threads: nil | pos_integer,
          max_model_len: nil | pos_integer,
          max_batch_tokens: nil | pos_integer,
          max_sequences: nil | pos_integer,
          max_waiting: nil | pos_integer,
          max_events: nil | pos_integer,
          kv_cache: nil | {:bytes, pos_integer} | {:fraction, number},
          prefix_cache: boolean,
          reader_timeout_ms: nil | non_neg_integer,
          stuck_after_ms: nil | pos_integer,
          name: atom,
          open_timeout_ms: timeout,
          max_restarts: non_neg_integer,
          max_seconds: pos_integer,
          backoff_ms: non_neg_integer,
          max_backoff_ms: non_neg_integer,
          drain_timeout_ms: non_neg_integer,
          max_per_caller: nil | pos_integer,
          max_per_tenant: nil | pos_integer,
          telemetry: nil | Pyrex.Telemetry.handler(),
          cluster: boolean
        }

  @doc """
  Checks the options.

      iex> Pyrex.Options.new(model: "models/shapes", max_sequences: 0)
      {:error, %Pyrex.Error{kind: :invalid_request, message: "max_sequences is 0, expected an integer from 1 to 65536"}}
  """
  @spec new(keyword) :: {:ok, t} | {:error, Error.t()}
  def new(options) do
    case Check.options(options, @fields) do
      {:ok, %{model: nil}} ->
        Check.invalid("model is missing, expected the folder of a checkpoint")

      {:ok, %{name: name}} when name in [nil, true, false, :cluster] ->
        Check.invalid("name is #{inspect(name)}, expected a name")

      {:ok, checked} ->
        {:ok, struct!(__MODULE__, checked)}

      {:error, error} ->
        {:error, error}
    end
  end

  @doc "These options with others over them."
  @spec merge(t, keyword) :: {:ok, t} | {:error, Error.t()}
  def merge(%__MODULE__{} = present, options) do
    if Keyword.keyword?(options) do
      given = for {name, value} <- Map.from_struct(present), not is_nil(value), do: {name, value}
      new(Keyword.merge(given, options))
    else
      new(options)
    end
  end

  @doc "The names of the options, in the order of the documentation."
  @spec names() :: [atom]
  def names, do: Enum.map(@fields, &elem(&1, 0))

  @doc false
  @spec to_native(t) :: map
  def to_native(%__MODULE__{} = options) do
    native = Map.take(options, Keyword.keys(@native))
    model = if is_binary(options.model), do: options.model
    words = for name <- [:dtype, :vision_dtype, :tables], into: %{}, do: {name, word(native[name])}
    Map.merge(%{native | model: model, kv_cache: kv_cache(options.kv_cache)}, words)
  end

  defp word(nil), do: nil
  defp word(atom), do: Atom.to_string(atom)

  defp kv_cache({:fraction, share}), do: {:fraction, share * 1.0}
  defp kv_cache(other), do: other
end

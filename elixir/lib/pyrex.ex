defmodule Pyrex do
  @moduledoc """
  Text and images in, tokens out, inside your own VM and under your own supervisor.

      children = [
        {Pyrex, name: MyModel, model: "models/shapes"}
      ]

      MyModel
      |> Pyrex.stream([{:image_file, "red_circle.png"}, "Describe this image."])
      |> Enum.each(&IO.write/1)

  Whoever asks owns the request: when that process dies, or halts its stream, the request is cancelled and what it held is free.
  When the engine dies, every request under way ends with an error, and the supervisor opens the engine again.

  Everything that takes an engine takes its name, `{name, node}`, or `{:cluster, name}` for whichever node of a `Pyrex.Cluster`.
  Prompts are described in `Pyrex.Prompt`, the options of an engine in `Pyrex.Options`, those of a request in
  `Pyrex.Request.Options`, what can go wrong in `Pyrex.Error`.
  """

  alias Pyrex.Engine.{Owner, Table}
  alias Pyrex.{Admission, Cluster, Engine, Error, Feed, Options, Prompt, Question, Request, Result}

  @type engine :: atom | {atom, node} | {:cluster, atom}

  @doc "A child of your supervisor; see `Pyrex.Options`."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    name = if Keyword.keyword?(options), do: Keyword.get(options, :name, __MODULE__), else: __MODULE__

    %{
      id: {__MODULE__, name},
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor,
      shutdown: :infinity
    }
  end

  @doc """
  Opens an engine under a supervisor of its own. Returns once the model is loaded.
  """
  @spec start_link(keyword) :: {:ok, pid} | {:error, Error.t() | term}
  def start_link(options) do
    with {:ok, options} <- Options.new(options) do
      case Engine.start_link(options) do
        {:error, {:shutdown, {:failed_to_start_child, Owner, {:shutdown, %Error{} = error}}}} ->
          {:error, error}

        started ->
          started
      end
    end
  end

  @doc """
  Waits for the whole answer.

      iex> image = {:image_file, "../models/shapes/examples/red_circle.png"}
      iex> {:ok, result} = Pyrex.generate(Shapes, [image, "Describe this image."])
      iex> result.text
      "This is a simple image of a solid red circle on a white background."

  With a `:schema` the answer is JSON, and decoded:

      iex> schema = %{type: "object", properties: %{red: %{type: "boolean"}}, required: ["red"], additionalProperties: false}
      iex> image = {:image_file, "../models/shapes/examples/red_circle.png"}
      iex> {:ok, result} = Pyrex.generate(Shapes, [image, "Is it red?"], schema: schema, max_tokens: 64)
      iex> is_boolean(result.object["red"])
      true

  An error has in `partial` what there was when it came.

      iex> {:error, error} = Pyrex.generate(Shapes, "Hello", temperature: -1)
      iex> {error.kind, error.message}
      {:invalid_request, "temperature is -1, expected a number from 0 to 1000000"}
  """
  @spec generate(engine, Prompt.t(), keyword) :: {:ok, Result.t()} | {:error, Error.t()}
  def generate(engine, prompt, options \\ []) do
    with {:ok, question} <- Question.new(prompt, options),
         {:ok, feed} <- Feed.open(engine, question),
         {:ok, result} <- Feed.collect(feed) do
      if question.schema, do: Result.decode(result), else: {:ok, result}
    end
  end

  @doc "As `generate/3`, but raises the error."
  @spec generate!(engine, Prompt.t(), keyword) :: Result.t()
  def generate!(engine, prompt, options \\ []) do
    case generate(engine, prompt, options) do
      {:ok, result} -> result
      {:error, error} -> raise error
    end
  end

  @doc """
  The answer as a lazy stream of its text, piece by piece.

  The request begins when the stream is consumed, and belongs to the consuming process; halting the stream cancels it. Options
  that are wrong raise at once, what goes wrong later raises while the stream is consumed.

      iex> image = {:image_file, "../models/shapes/examples/red_circle.png"}
      iex> Shapes |> Pyrex.stream([image, "Describe this image."]) |> Enum.join() |> String.slice(0, 22)
      "This is a simple image"

  With `events: true` its elements are those of `Pyrex.Event`, but the last one is `{:done, result}` or `{:error, error}`, and
  nothing is raised once the stream is consumed.

      iex> events = Shapes |> Pyrex.stream("Hello", max_tokens: 2, events: true) |> Enum.to_list()
      iex> [{:started, [_ | _], 0}, {:token, 0, _, _, nil, nil}, {:token, 0, _, _, nil, :length}, {:done, result}] = events
      iex> result.finish_reason
      :length
  """
  @spec stream(engine, Prompt.t(), keyword) :: Enumerable.t()
  def stream(engine, prompt, options \\ []) do
    {events, options} =
      if Keyword.keyword?(options), do: Keyword.pop(options, :events, false), else: {false, options}

    case Question.new(prompt, options) do
      {:ok, %{n: n}} when n > 1 and not events ->
        raise Error.new(:invalid_request, "n is #{n}, expected 1 unless events are streamed")

      {:ok, question} when events ->
        Feed.events(engine, question)

      {:ok, question} ->
        Feed.texts(engine, question)

      {:error, error} ->
        raise error
    end
  end

  @doc """
  Begins a request and returns at once, for processes that must not wait; see `Pyrex.Request`.

      iex> {:ok, request} = Pyrex.submit(Shapes, "Hello", max_tokens: 1)
      iex> :ok = Pyrex.Request.ask(request)
      iex> ref = request.ref
      iex> receive do {:pyrex_events, ^ref, [{:started, _ids, 0} | _more]} -> :begun end
      :begun
  """
  @spec submit(engine, Prompt.t(), keyword) :: {:ok, Request.t()} | {:error, Error.t()}
  def submit(engine, prompt, options \\ []) do
    with {:ok, question} <- Question.new(prompt, options),
         {:ok, feed} <- Feed.open(engine, question),
         do: {:ok, feed.request}
  end

  @doc "Ends a request early. Its final event still comes."
  @spec cancel(Request.t()) :: :ok
  defdelegate cancel(request), to: Request

  @doc "Cancels all requests that were given this `:group`, and says how many there were."
  @spec cancel_group(atom | {atom, node}, term) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def cancel_group(engine, group), do: at(engine, Admission, :cancel_group, [group])

  @doc """
  The token ids of a text, as they stand: no template, no token in front.

      iex> {:ok, ids} = Pyrex.tokenize(Shapes, "a red circle")
      iex> Pyrex.detokenize(Shapes, ids)
      {:ok, "a red circle"}
  """
  @spec tokenize(engine, String.t()) :: {:ok, [non_neg_integer]} | {:error, Error.t()}
  def tokenize(engine, text) do
    with {:ok, {:text, text}} <- Prompt.new({:text, text}), do: ask(engine, {:tokenize, text})
  end

  @doc "The text of token ids."
  @spec detokenize(engine, [non_neg_integer]) :: {:ok, String.t()} | {:error, Error.t()}
  def detokenize(engine, ids) do
    with {:ok, {:ids, ids}} <- Prompt.new({:ids, ids}), do: ask(engine, {:detokenize, ids})
  end

  @doc """
  How many tokens a prompt has, its images' included. Takes `:tools` and `:variables`.

      iex> {:ok, text} = Pyrex.count_tokens(Shapes, "What is this?")
      iex> {:ok, both} = Pyrex.count_tokens(Shapes, [{:image_file, "../models/shapes/examples/red_circle.png"}, "What is this?"])
      iex> both > text
      true
  """
  @spec count_tokens(engine, Prompt.t(), keyword) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def count_tokens(engine, prompt, options \\ []) do
    with {:ok, prompt} <- Question.prompt(prompt, options),
         {:ok, %{token_ids: ids}} <- ask(engine, {:encode, prompt}),
         do: {:ok, length(ids)}
  end

  @doc """
  The text that the chat template of the model makes of a conversation. Takes `:tools` and `:variables`.

      iex> {:ok, text} = Pyrex.apply_template(Shapes, "What is this?")
      iex> text =~ "What is this?"
      true
  """
  @spec apply_template(engine, Prompt.t(), keyword) :: {:ok, String.t()} | {:error, Error.t()}
  def apply_template(engine, prompt, options \\ []) do
    with {:ok, prompt} <- Question.prompt(prompt, options), do: ask(engine, {:render, prompt})
  end

  @doc """
  What the engine is: its family, limits, and what the checkpoint recommends.

      iex> {:ok, info} = Pyrex.info(Shapes)
      iex> info.family
      "gemma4"
  """
  @spec info(engine) :: {:ok, map} | {:error, Error.t()}
  def info(engine), do: at(engine, Engine, :info, [])

  @doc """
  How the engine stands after its last step: requests, cache blocks, hits, rates.

      iex> {:ok, stats} = Pyrex.stats(Shapes)
      iex> stats.num_free_blocks <= stats.num_blocks
      true
  """
  @spec stats(engine) :: {:ok, map} | {:error, Error.t()}
  def stats(engine), do: at(engine, Engine, :stats, [])

  @doc """
  Whether the engine moves: asks its threads for a sign of life.

      iex> Pyrex.probe(Shapes)
      :ok
  """
  @spec probe(engine, pos_integer) :: :ok | {:error, Error.t()}
  def probe(engine, timeout_ms \\ 1_000) do
    with {:ok, :ok} <- ask(engine, {:probe, timeout_ms}, timeout_ms + 1_000), do: :ok
  end

  @doc """
  Takes no more requests, and lets those under way finish for at most `timeout_ms`. Returns how many were cut off.

  The engine stays closed until it is swapped or started again. Stopping the supervisor drains by itself.
  """
  @spec drain(atom | {atom, node}, non_neg_integer) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def drain(engine, timeout_ms \\ 30_000), do: at(engine, Engine, :drain, [timeout_ms])

  @doc """
  Puts another engine in the place of this one while it serves: opens it with these options over the present ones, moves new
  requests to it, lets those under way finish for at most `:drain_timeout_ms`, and closes the old one. No request is lost.

  Returns how many were cut off. If the new engine cannot be opened the old one goes on. Both are in memory for a while. The
  limits of the supervisor stay those that it was started with.
  """
  @spec swap(atom, keyword) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def swap(engine, options) do
    if Table.exists?(engine) do
      present = Table.fetch!(engine, :options)

      with {:ok, present} <- Options.merge(present, options),
           do: Owner.swap(engine, present)
    else
      {:error, Table.absent(engine)}
    end
  end

  defp ask(engine, question, timeout \\ :infinity), do: at(engine, Engine, :ask, [question, timeout])

  defp at({:cluster, name}, module, function, arguments) do
    with {:ok, node} <- Cluster.pick(name, nil, [], nil), do: at({name, node}, module, function, arguments)
  end

  defp at({name, node}, module, function, arguments) when node != node() do
    case :rpc.call(node, module, function, [name | arguments]) do
      {:badrpc, reason} -> {:error, Error.new(:closed, "node #{node} does not answer: #{inspect(reason)}")}
      answer -> answer
    end
  end

  defp at({name, _here}, module, function, arguments), do: apply(module, function, [name | arguments])
  defp at(name, module, function, arguments), do: apply(module, function, [name | arguments])
end

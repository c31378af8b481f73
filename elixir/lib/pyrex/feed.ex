defmodule Pyrex.Feed do
  @moduledoc false
  # The events of one question, wherever it is answered: by an engine here, on a named node, or on whichever node of a cluster.
  # A node that dies before it has produced a token costs nothing but time: the question goes to another. Belongs to the
  # process that opened it.

  alias Pyrex.{Cluster, Error, Event, Question, Request, Result}

  @enforce_keys [:target, :question]
  defstruct [:target, :question, :request, :demand, :key, tried: [], started: false, produced: false]

  @type t :: %__MODULE__{}

  @doc "Asks an engine, or whichever of a cluster."
  @spec open(Pyrex.engine(), Question.t()) :: {:ok, t} | {:error, Error.t()}
  def open({:cluster, _name} = target, %Question{request: request, affinity: affinity} = question) do
    key = Cluster.affinity(elem(request, 1), affinity)
    submit(%__MODULE__{target: target, question: question, key: key}, nil)
  end

  def open(target, question), do: submit(%__MODULE__{target: target, question: question}, nil)

  @doc "The next events, at least one."
  @spec next(t) :: {[Event.t(), ...], t}
  def next(feed), do: next_of(ask(feed))

  @doc "Asks for the next events, which `await/2` brings."
  @spec ask(t) :: t
  def ask(feed), do: %{feed | demand: Request.demand(feed.request)}

  @doc "The events that were asked for, or `:idle` if none come so long; it may be called again then."
  @spec await(t, timeout) :: {[Event.t(), ...] | :idle, t}
  def await(feed, within_ms) do
    case Request.await(feed.request, feed.demand, within_ms) do
      :idle -> {:idle, feed}
      events -> settle(feed, events, within_ms)
    end
  end

  @doc "Ends the question, if it has not ended."
  @spec close(t) :: :ok
  def close(feed), do: Request.close(feed.request)

  @doc "All of it."
  @spec collect(t) :: {:ok, Result.t()} | {:error, Error.t()}
  def collect(feed), do: collect(feed, Result.draft())

  @doc "A lazy stream of the first answer's text. Raises the error."
  @spec texts(Pyrex.engine(), Question.t()) :: Enumerable.t()
  def texts(target, question),
    do: Stream.resource(fn -> open(target, Question.again(question)) end, &next_texts/1, &close_if_open/1)

  @doc "A lazy stream of events that ends with `{:done, result}` or `{:error, error}`."
  @spec events(Pyrex.engine(), Question.t()) :: Enumerable.t()
  def events(target, question) do
    Stream.resource(
      fn -> {open(target, Question.again(question)), Result.draft()} end,
      &next_events/1,
      fn {feed, _draft} -> close_if_open(feed) end
    )
  end

  defp next_of(feed) do
    with {:idle, feed} <- await(feed, Cluster.patience_ms()), do: next_of(feed)
  end

  defp settle(feed, events, within_ms) do
    case {List.last(events), feed} do
      {{:failed, %Error{kind: kind} = error}, %{target: {:cluster, _name}, produced: false}}
      when kind in [:closed, :overloaded] ->
        if tokens?(events), do: {events, feed}, else: again(feed, error, within_ms)

      _live ->
        note(feed, events, within_ms)
    end
  end

  defp collect(feed, draft) do
    {events, feed} = next(feed)
    draft = Enum.reduce(events, draft, &Result.add(&2, &1))

    case List.last(events) do
      {:finished, _reason, _usage, _timings} -> {:ok, Result.new(draft)}
      {:failed, error} -> {:error, Result.partial(draft, error)}
      _more -> collect(feed, draft)
    end
  end

  defp next_texts(:done), do: {:halt, :done}
  defp next_texts({:error, error}), do: raise(error)

  defp next_texts({:ok, feed}) do
    {events, feed} = next(feed)
    texts = for {:token, _index, _token_id, text, _logprobs, _finish} when text != "" <- events, do: text

    case List.last(events) do
      {:finished, _reason, _usage, _timings} -> {texts, :done}
      {:failed, error} -> {texts, {:error, error}}
      _more -> {texts, {:ok, feed}}
    end
  end

  defp next_events({:done, draft}), do: {:halt, {:done, draft}}
  defp next_events({{:error, error}, draft}), do: {[{:error, error}], {:done, draft}}

  defp next_events({{:ok, feed}, draft}) do
    {events, feed} = next(feed)
    draft = Enum.reduce(events, draft, &Result.add(&2, &1))

    case List.pop_at(events, -1) do
      {{:finished, _reason, _usage, _timings}, before} ->
        {before ++ [{:done, Result.new(draft)}], {:done, draft}}

      {{:failed, error}, before} ->
        {before ++ [{:error, Result.partial(draft, error)}], {:done, draft}}

      {_more, _before} ->
        {events, {{:ok, feed}, draft}}
    end
  end

  defp close_if_open({:ok, feed}), do: close(feed)
  defp close_if_open(_ended), do: :ok

  defp again(feed, error, within_ms) do
    case submit(feed, error) do
      {:ok, feed} -> await(ask(feed), within_ms)
      {:error, error} -> {[{:failed, error}], feed}
    end
  end

  # The prompt is told once, however often it is asked.
  defp note(feed, events, within_ms) do
    kept = if feed.started, do: Enum.reject(events, &match?({:started, _, _}, &1)), else: events
    started = feed.started or Enum.any?(events, &match?({:started, _, _}, &1))
    feed = %{feed | started: started, produced: feed.produced or tokens?(events)}
    if kept == [], do: await(ask(feed), within_ms), else: {kept, feed}
  end

  defp submit(%{target: {:cluster, name}} = feed, last_error) do
    with {:ok, node} <- Cluster.pick(name, feed.key, feed.tried, last_error) do
      feed = %{feed | tried: [node | feed.tried]}

      case Request.start({name, node}, feed.question) do
        {:ok, request} -> {:ok, %{feed | request: request}}
        {:error, %Error{kind: kind} = error} when kind in [:closed, :overloaded] -> submit(feed, error)
        {:error, error} -> {:error, error}
      end
    end
  end

  defp submit(feed, _last_error) do
    with {:ok, request} <- Request.start(feed.target, feed.question), do: {:ok, %{feed | request: request}}
  end

  defp tokens?(events), do: Enum.any?(events, &Event.token?/1)
end

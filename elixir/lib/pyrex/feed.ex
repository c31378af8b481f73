defmodule Pyrex.Feed do
  @moduledoc false
  # The events of one question, wherever it is answered: by an engine here, on a named node, or on whichever node of a cluster.
  # A node that dies before it has produced a token costs nothing but time: the question goes to another. Belongs to the
  # process that opened it.

  alias Pyrex.{Cluster, Error, Event, Request}

  @enforce_keys [:target, :asked]
  defstruct [:target, :asked, :request, :key, tried: [], started: false, produced: false]

  @type t :: %__MODULE__{}

  @doc "Submits `asked` to `target`; `key` says which questions of a cluster belong together."
  @spec open(Pyrex.engine(), map, term) :: {:ok, t} | {:error, Error.t()}
  def open(target, asked, key), do: submit(%__MODULE__{target: target, asked: asked, key: key}, nil)

  @doc "The next events, at least one."
  @spec next(t) :: {[Event.t(), ...], t}
  def next(feed) do
    events = Request.next(feed.request, Cluster.patience_ms())

    case {List.last(events), feed} do
      {{:failed, %Error{kind: kind} = error}, %{target: {:cluster, _name}, produced: false}}
      when kind in [:closed, :overloaded] ->
        if tokens?(events), do: {events, feed}, else: again(feed, error)

      _live ->
        note(feed, events)
    end
  end

  @doc "Ends the question, if it has not ended."
  @spec close(t) :: :ok
  def close(feed), do: Request.close(feed.request)

  defp again(feed, error) do
    case submit(feed, error) do
      {:ok, feed} -> next(feed)
      {:error, error} -> {[{:failed, error}], feed}
    end
  end

  # The prompt is told once, however often it is asked.
  defp note(feed, events) do
    kept = if feed.started, do: Enum.reject(events, &match?({:started, _, _}, &1)), else: events
    feed = %{feed | started: true, produced: feed.produced or tokens?(events)}
    if kept == [], do: next(feed), else: {kept, feed}
  end

  defp submit(%{target: {:cluster, name}} = feed, last_error) do
    with {:ok, node} <- Cluster.pick(name, feed.key, feed.tried, last_error) do
      feed = %{feed | tried: [node | feed.tried]}

      case Request.start({name, node}, feed.asked) do
        {:ok, request} -> {:ok, %{feed | request: request}}
        {:error, %Error{kind: kind} = error} when kind in [:closed, :overloaded] -> submit(feed, error)
        {:error, error} -> {:error, error}
      end
    end
  end

  defp submit(feed, _last_error) do
    with {:ok, request} <- Request.start(feed.target, feed.asked), do: {:ok, %{feed | request: request}}
  end

  defp tokens?(events), do: Enum.any?(events, &match?({:token, _, _, _, _, _}, &1))
end

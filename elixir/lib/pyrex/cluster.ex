defmodule Pyrex.Cluster do
  @moduledoc """
  Engines of one name on many nodes, used as one: `Pyrex.generate({:cluster, MyModel}, "…")`.

  An engine with `cluster: true` joins the `:pg` scope `Pyrex.Cluster` under its name and tells every node its load ten times a
  second. A caller, on any node on which the application `:pyrex` runs, picks:

    * the node that questions with the same beginning went to, because it still holds what it computed for them, unless that
      is busier by two requests than the least busy one. The same beginning is the same system messages and first other
      message, or the same `:affinity`
    * else the least busy: fewest requests, then most free cache blocks

  The request runs under the supervisor of the node that was picked; the process there owns it, watches the caller and the
  engine, and sends what has come since it was last asked as one message.

  When the node dies, or its engine does, or it has no room, a request that has produced no token is asked elsewhere. One that
  has fails with `:closed`, and `error.partial` is what there was. A node that does not answer for two seconds is taken for dead; the
  runtime notices by itself that a connection is gone, but silence only after `net_ticktime`, a minute unless set lower.
  """

  alias Pyrex.Cluster.{Loads, Route}
  alias Pyrex.Error

  @patience_ms 1_000

  @doc "How long a node may be silent before it is asked whether it lives; half of the time after which it is taken for dead."
  @spec patience_ms() :: pos_integer
  def patience_ms, do: @patience_ms

  @doc "The nodes that serve `name`."
  @spec nodes(atom) :: [node]
  def nodes(name), do: __MODULE__ |> :pg.get_members(name) |> Enum.map(&node/1) |> Enum.uniq() |> Enum.sort()

  @doc "What is known of the load of `name`, by node."
  @spec loads(atom) :: %{optional(node) => Route.load()}
  def loads(name), do: Map.new(nodes(name), &{&1, Loads.fetch(name, &1)})

  @doc false
  @spec pick(atom, term, [node], nil | Error.t()) :: {:ok, node} | {:error, Error.t()}
  def pick(name, key, tried, last_error) do
    case Route.pick(Map.drop(loads(name), tried), key) do
      {:ok, node} ->
        Loads.assign(name, node)
        {:ok, node}

      :none ->
        {:error,
         last_error || Error.new(:closed, "no node serves #{inspect(name)}, as far as #{node()} knows")}
    end
  end

  @doc false
  @spec affinity(tuple, term) :: term
  def affinity(prompt, nil), do: :erlang.phash2(beginning(prompt))
  def affinity(_prompt, affinity), do: affinity

  defp beginning({:chat, messages, _tools, _variables}) do
    {system, rest} =
      Enum.split_while(messages, fn {role, _content, _fields} -> role in ["system", "developer"] end)

    {system, List.first(rest)}
  end

  defp beginning({:text, text}), do: binary_part(text, 0, min(byte_size(text), 256))
  defp beginning({:ids, ids}), do: Enum.take(ids, 64)
  defp beginning(body) when is_binary(body), do: body
end

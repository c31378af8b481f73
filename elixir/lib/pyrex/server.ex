defmodule Pyrex.Server do
  @moduledoc """
  OpenAI's protocol over HTTP, in a supervision tree.

      children = [
        {Pyrex, name: MyModel, model: "models/shapes"},
        {Pyrex.Server, engine: MyModel, port: 1337, tls: [cert: "server.pem", key: "server.key", client_ca: "clients.pem"]}
      ]

  It is the server of `pyrex serve`, with all its routes, page and metrics, on threads of its own in this VM. Every request that
  a client makes is announced here, and owned by a process under the engine's supervisor, as those of `Pyrex.submit/3` are: that
  process's death ends the answer, `:max_per_tenant` and telemetry hold for it, `Pyrex.swap/2` moves new ones. Its tokens go from
  the engine to the socket and wake no process.

  What OTP refuses, clients are told: 429 when there is no room, 503 while the engine is opened again or drains, with
  `Retry-After`. `:max_per_caller` counts processes and so leaves them alone; tenants are those of `:tenants`, by name.

  Put it after its engine. Supervisors stop last children first: it takes no more requests then, answers those under way, and
  closes, before the engine is asked to. Any strategy will do: while there is no engine it says so, and finds the next one by
  itself. A port that cannot be had fails `start_link/1` with the reason. When this process is killed the port closes, and so do
  its connections.

  ## Options

    * `:engine` (required): the name of an engine on this node
    * `:name`: of this process; none unless given
    * `:host`, `:port`: where to listen; `"127.0.0.1"` and 8080. Port 0 takes a free one, see `address/1`
    * `:insecure`: whether a plain listener may stand on an address that others can reach
    * `:model`: what clients call the model; the engine's name unless given
    * `:tls`: `:cert` and `:key`, and `:client_ca` and `:client_crl` if only those with a certificate get in; files in PEM
    * `:auth`: `:keys`, a file of API keys, `name:key` on a line
    * `:tenants`: who is who, `%{"a" => [certificates: ["CN:alice"], keys: ["a"], max_concurrent: 4, requests_per_minute: 60,
      priority: 1]}`
    * `:limits`: `:max_connections`, `:max_body_bytes`, `:max_images`, `:request_timeout_ms` and those beside them
    * `:images`: `:hosts` and `:dirs` that images may be fetched from
    * `:cors`: `:origins` of pages that may ask
    * `:drain_timeout_ms`: how long requests may go on when it is stopped; 30 000
    * `:num_threads`: that serve connections; 2

  Those from `:host` to `:cors` are the fields of `pyrex serve`'s file of settings, with the same defaults.
  """

  use GenServer

  alias Pyrex.Engine.Table
  alias Pyrex.{Check, Error, JSON, Native, Question, Request}

  # How often it looks which engine there is.
  @look_ms 100
  # What closing takes beyond draining.
  @grace_ms 2_000
  @drain_timeout_ms 30_000

  @config [:host, :port, :insecure, :model, :tls, :auth, :tenants, :limits, :images, :cors]
  @own [
    {:engine, nil, :atom},
    {:name, nil, :atom},
    {:drain_timeout_ms, @drain_timeout_ms, {:integer, 0, 86_400_000}},
    {:num_threads, 2, {:integer, 1, 1024}}
  ]

  defstruct [:native, :id, :name, :address, :options]

  @doc "A child of your supervisor."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    keyword? = Keyword.keyword?(options)
    option = &if(keyword?, do: Keyword.get(options, &1, &2), else: &2)
    drain_timeout_ms = option.(:drain_timeout_ms, @drain_timeout_ms)
    patience_ms = if is_integer(drain_timeout_ms), do: max(drain_timeout_ms, 0), else: 0

    %{
      id: {__MODULE__, option.(:name, option.(:engine, __MODULE__))},
      start: {__MODULE__, :start_link, [options]},
      shutdown: patience_ms + 2 * @grace_ms
    }
  end

  @doc "Opens the port. Returns once clients can connect."
  @spec start_link(keyword) :: {:ok, pid} | {:error, Error.t() | term}
  def start_link(options) do
    with {:ok, checked} <- check(options) do
      named = if checked.name, do: [name: checked.name], else: []

      with {:error, {:shutdown, %Error{} = error}} <- GenServer.start_link(__MODULE__, checked, named),
           do: {:error, error}
    end
  end

  @doc "Where it listens, as `\"127.0.0.1:1337\"`."
  @spec address(GenServer.server()) :: String.t()
  def address(server), do: GenServer.call(server, :address)

  @doc """
  Reads certificates, keys and tenants anew, from the files as they are now and with `options` over the present ones.

  All of it holds from then on, or nothing if something is wrong. Connections close after the answer under way.
  """
  @spec reload(GenServer.server(), keyword) :: :ok | {:error, Error.t()}
  def reload(server, options \\ []), do: GenServer.call(server, {:reload, options}, :infinity)

  @impl true
  def init(options) do
    Process.flag(:trap_exit, true)
    id = System.unique_integer([:positive])

    with {:ok, config} <- config(options),
         {:ok, native} <- Native.server_open(config, options.num_threads, id, self()),
         {:ok, address} <- opened(id) do
      state = %__MODULE__{native: native, id: id, name: options.engine, address: address, options: options}
      {:ok, look(state)}
    else
      {:error, %Error{} = error} -> {:stop, {:shutdown, error}}
      {:error, error} -> {:stop, {:shutdown, Error.from_native(error)}}
    end
  end

  @impl true
  def handle_call(:address, _from, state), do: {:reply, state.address, state}

  def handle_call({:reload, options}, _from, state) do
    with :ok <- reloadable(options),
         {:ok, options} <- check(Keyword.merge(given(state.options), options)),
         {:ok, config} <- config(options),
         :ok <- reloaded(state.native, config) do
      {:reply, :ok, %{state | options: options}}
    else
      {:error, error} -> {:reply, {:error, error}, state}
    end
  end

  @impl true
  def handle_info({:pyrex_arrival, id, arrival, about}, %{id: id} = state) do
    take_in(state.name, arrival, about)
    {:noreply, state}
  end

  def handle_info(:look, state), do: {:noreply, look(state)}

  def handle_info({:pyrex_server, id, {:closed, _num_cut_off}}, %{id: id} = state),
    do: {:stop, {:shutdown, Error.new(:closed, "the server closed by itself")}, state}

  def handle_info({:pyrex_server, id, {:error, error}}, %{id: id} = state),
    do: {:stop, {:shutdown, Error.from_native(error)}, state}

  def handle_info(_stray, state), do: {:noreply, state}

  # Those that were let in before the end are owned to the end.
  @impl true
  def terminate(_reason, state) do
    Native.server_stop(state.native)
    close(state, System.monotonic_time(:millisecond) + state.options.drain_timeout_ms + @grace_ms)
  end

  defp close(%{id: id} = state, deadline_ms) do
    receive do
      {:pyrex_arrival, ^id, arrival, about} ->
        take_in(state.name, arrival, about)
        close(state, deadline_ms)

      {:pyrex_server, ^id, _last_word} ->
        :ok
    after
      max(deadline_ms - System.monotonic_time(:millisecond), 0) -> :ok
    end
  end

  defp take_in(name, arrival, {tenant, request_id, _path}) do
    case Request.start(name, Question.arrival(arrival, tenant, request_id)) do
      {:ok, _request} -> :ok
      {:error, error} -> Native.arrival_reject(arrival, error.kind, error.message, error.retry_after_ms)
    end
  end

  # Bodies are read for the engine that will answer them. Its table says when that is another one; this is for a table that was
  # not there, or is not the one it was.
  defp look(state) do
    Process.send_after(self(), :look, @look_ms)
    Table.point(self(), state.native, state.name)
    state
  end

  defp opened(id) do
    receive do
      {:pyrex_server, ^id, {:open, address}} -> {:ok, address}
      {:pyrex_server, ^id, {:error, error}} -> {:error, error}
    end
  end

  defp reloaded(native, config) do
    id = System.unique_integer([:positive])

    with {:ok, :ok} <- Native.server_reload(native, config, id, self()) do
      receive do
        {:pyrex_reply, ^id, {:ok, _fields}} ->
          :ok

        {:pyrex_reply, ^id, {:error, error}} ->
          {:error, Error.from_native(error)}
      end
    else
      {:error, error} -> {:error, Error.from_native(error)}
    end
  end

  defp check(options) do
    case Check.options(options, @own ++ for(field <- @config, do: {field, nil, :any})) do
      {:ok, %{engine: nil}} -> Check.invalid("engine is nil, expected the name of an engine")
      checked -> checked
    end
  end

  defp reloadable(options) do
    case Keyword.keyword?(options) && Keyword.keys(options) -- [:tls, :auth, :tenants] do
      [] ->
        :ok

      [name | _more] ->
        Check.invalid("#{name} cannot change while the server runs, expected tls, auth or tenants")

      false ->
        Check.invalid("options are #{Check.show(options)}, expected a keyword list")
    end
  end

  defp given(checked), do: for({name, value} <- checked, not is_nil(value), do: {name, value})

  # The fields are for the server to check: it knows them.
  defp config(options) do
    given =
      for field <- @config,
          value = Map.fetch!(options, field),
          value not in [nil, []],
          into: %{},
          do: {field, value}

    drain = %{drain_timeout_ms: options.drain_timeout_ms}
    config = Map.merge(%{model: inspect(options.engine), limits: drain}, given)
    limits = config.limits
    limits = if is_map(limits) or Keyword.keyword?(limits), do: Enum.into(limits, drain), else: limits

    with {:error, reason} <- JSON.encode(%{config | limits: limits}),
         do: Check.invalid("the options of the server hold #{reason}")
  end
end

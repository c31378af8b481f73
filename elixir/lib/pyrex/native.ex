defmodule Pyrex.Native do
  @moduledoc false
  # The functions of the NIF, all of which return at once. Answers that take time come as messages:
  #
  #   {:pyrex_engine, id, :open | {:progress, done, total} | {:error, {kind, message}} | {:down, {kind, message}}}
  #   {:pyrex_ready, id}              to the owner of a request, after a `request_take` that found nothing: now there is something
  #   {:pyrex_events, tag, events}    to the consumer of a request, if such a `request_take` named one; never the last events
  #   {:pyrex_server, id, {:open, address} | {:error, {kind, message}} | {:closed, num_cut_off}}
  #   {:pyrex_arrival, id, arrival, {tenant, request_id, path}}   to the owner of a server: a client asks
  #   {:pyrex_reply, id, {:ok, term} | {:error, {kind, message}}}
  #
  # The death of an owner closes its engine or server, or cancels its request; so does the garbage collection of the term.

  @on_load :load

  @type engine :: reference
  @type request :: reference
  @type server :: reference
  @type arrival :: reference
  @type error :: {:error, {Pyrex.Error.kind(), String.t()}}

  @doc false
  def load do
    # A library whose old code is not purged cannot be loaded again.
    :code.purge(__MODULE__)
    :erlang.load_nif(:filename.join(:code.priv_dir(:pyrex), ~c"native/pyrex_nif"), 0)
  end

  @spec engine_open(map, non_neg_integer, pid) :: {:ok, engine} | error
  def engine_open(_options, _id, _owner), do: :erlang.nif_error(:nif_not_loaded)

  @spec engine_info(engine) :: {:ok, map} | error
  def engine_info(_engine), do: :erlang.nif_error(:nif_not_loaded)

  @spec engine_stats(engine) :: {:ok, map} | error
  def engine_stats(_engine), do: :erlang.nif_error(:nif_not_loaded)

  @spec engine_close(engine) :: :ok
  def engine_close(_engine), do: :erlang.nif_error(:nif_not_loaded)

  @spec engine_ask(engine, tuple, non_neg_integer, pid) :: :ok | error
  def engine_ask(_engine, _question, _id, _owner), do: :erlang.nif_error(:nif_not_loaded)

  @spec request_submit(engine, tuple, non_neg_integer, pid) :: {:ok, request} | error
  def request_submit(_engine, _request, _id, _owner), do: :erlang.nif_error(:nif_not_loaded)

  # All that waits, and how many tokens consumers were sent since. `next` hears of those to come, nil for the owner.
  @spec request_take(request, nil | {pid, term}) :: {non_neg_integer, [tuple]}
  def request_take(_request, _next), do: :erlang.nif_error(:nif_not_loaded)

  # As `request_take(request, nil)`, of a request with a `reply`, and what its client is to be sent, if that is anything new.
  @spec request_take_written(request) :: {[tuple], nil | {pos_integer, String.t(), binary}}
  def request_take_written(_request), do: :erlang.nif_error(:nif_not_loaded)

  @spec openai_error(Pyrex.Error.kind(), String.t()) :: {pos_integer, String.t(), binary}
  def openai_error(_kind, _message), do: :erlang.nif_error(:nif_not_loaded)

  @spec openai_models([{String.t(), non_neg_integer}]) :: binary
  def openai_models(_models), do: :erlang.nif_error(:nif_not_loaded)

  @spec openai_model(String.t(), non_neg_integer) :: binary
  def openai_model(_name, _created), do: :erlang.nif_error(:nif_not_loaded)

  @spec request_cancel(request) :: :ok
  def request_cancel(_request), do: :erlang.nif_error(:nif_not_loaded)

  @spec request_expire(request, String.t()) :: :ok
  def request_expire(_request, _message), do: :erlang.nif_error(:nif_not_loaded)

  @spec server_open(binary, pos_integer, non_neg_integer, pid) :: {:ok, server} | error
  def server_open(_config, _num_threads, _id, _owner), do: :erlang.nif_error(:nif_not_loaded)

  @spec server_set_engine(server, nil | engine) :: :ok
  def server_set_engine(_server, _engine), do: :erlang.nif_error(:nif_not_loaded)

  @spec server_stop(server) :: :ok
  def server_stop(_server), do: :erlang.nif_error(:nif_not_loaded)

  @spec server_reload(server, binary, non_neg_integer, pid) :: {:ok, :ok} | error
  def server_reload(_server, _config, _id, _owner), do: :erlang.nif_error(:nif_not_loaded)

  @spec arrival_reject(arrival, Pyrex.Error.kind(), String.t(), nil | non_neg_integer) :: :ok
  def arrival_reject(_arrival, _kind, _message, _retry_after_ms), do: :erlang.nif_error(:nif_not_loaded)

  # Only in a NIF that is built with the cargo feature `test-util`.

  @spec test_open(map, map, non_neg_integer, pid) :: {:ok, engine} | error
  def test_open(_script, _options, _id, _owner), do: :erlang.nif_error(:nif_not_loaded)

  @spec test_panic(engine) :: :ok
  def test_panic(_engine), do: :erlang.nif_error(:nif_not_loaded)

  @spec test_lateness(pos_integer, pos_integer, non_neg_integer, non_neg_integer, pid) :: :ok
  def test_lateness(_num_streams, _num_tokens, _every_us, _id, _owner), do: :erlang.nif_error(:nif_not_loaded)
end

defmodule Pyrex.Telemetry do
  @moduledoc """
  What Pyrex tells about itself. It logs nothing.

  Events go to the function that an engine was given as `:telemetry`, with the event, its measurements and its metadata; else
  to `:telemetry.execute/3`, if that library is loaded when the engine starts; else nowhere. The function runs in the process
  that the event is about: one that raises takes it down.

  Durations of requests are in native time units as `System.monotonic_time/0` counts them; those whose name ends in `_ms` were
  measured by the engine. What a request tells is told when its consumer takes the events, not before; a
  batch of tokens when it asks for more.

  | event | measurements | metadata beside `engine` |
  |---|---|---|
  | `[:pyrex, :engine, :open]` | `duration` | `model`, `reopened` |
  | `[:pyrex, :engine, :progress]` | `done`, `total` in bytes | `model` |
  | `[:pyrex, :engine, :down]` | `num_failures` in a row | `kind`, `message` |
  | `[:pyrex, :engine, :swap]` | `duration` until new requests moved | `model` |
  | `[:pyrex, :engine, :drain]` | `duration`, `num_cut_off` | |
  | `[:pyrex, :request, :start]` | `system_time` | |
  | `[:pyrex, :request, :rejected]` | `retry_after_ms` | `kind`, `message` |
  | `[:pyrex, :request, :encoded]` | `duration` since the start, `prompt_tokens`, `image_tokens` | |
  | `[:pyrex, :request, :first_token]` | `duration` since the start | |
  | `[:pyrex, :request, :tokens]` | `count` in this batch | |
  | `[:pyrex, :request, :queue]` | `duration_ms` | |
  | `[:pyrex, :request, :image_encode]` | `duration_ms`, `image_tokens`; only if there are images | |
  | `[:pyrex, :request, :prefill]` | `duration_ms`, `prompt_tokens`, `cached_tokens` | |
  | `[:pyrex, :request, :stop]` | `duration`, `completion_tokens`, `decode_ms` | `finish_reason` |
  | `[:pyrex, :request, :exception]` | `duration` | `kind`, `message` |

  The engine tells the times of queue, image encoding and prefill with its final event, so these three come right before `:stop`.
  The metadata of a request are `engine`, `request` (its `ref`, or the id that an HTTP client was told), `tenant` and `group`. A request that was admitted ends with one
  of `:stop` and `:exception`, unless its process is killed.
  """

  alias Pyrex.{Error, Event}

  @type event :: [atom]
  @type handler :: (event, measurements :: map, metadata :: map -> any)

  @doc false
  @spec handler(nil | handler) :: nil | handler
  def handler(nil) do
    if Code.ensure_loaded?(:telemetry), do: Function.capture(:telemetry, :execute, 3), else: nil
  end

  def handler(given), do: given

  @doc false
  @spec emit(nil | handler, event, map, map) :: :ok
  def emit(nil, _event, _measurements, _metadata), do: :ok

  def emit(handler, event, measurements, metadata) do
    handler.([:pyrex | event], measurements, metadata)
    :ok
  end

  @typedoc "What is known about a request so far."
  @opaque span :: %{handler: nil | handler, metadata: map, began: integer, told_first: boolean}

  @doc false
  @spec start(nil | handler, map) :: span
  def start(handler, metadata) do
    emit(handler, [:request, :start], %{system_time: System.system_time()}, metadata)
    %{handler: handler, metadata: metadata, began: System.monotonic_time(), told_first: false}
  end

  @doc false
  @spec observe(span, [Event.t()]) :: span
  def observe(%{handler: nil} = span, _events), do: span

  def observe(span, events) do
    num_tokens = Enum.count(events, &Event.token?/1)
    events |> Enum.filter(&match?({:started, _, _}, &1)) |> Enum.each(&tell(span, &1))

    if num_tokens > 0 and not span.told_first,
      do: emit(span, [:request, :first_token], %{duration: age(span)})

    span = sent(span, num_tokens)
    events |> Enum.filter(&Event.final?/1) |> Enum.each(&tell(span, &1))
    %{span | told_first: span.told_first or num_tokens > 0}
  end

  @doc false
  @spec sent(span, non_neg_integer) :: span
  def sent(span, 0), do: span

  def sent(span, num_tokens) do
    emit(span, [:request, :tokens], %{count: num_tokens})
    span
  end

  @doc false
  @spec age(span) :: integer
  def age(span), do: System.monotonic_time() - span.began

  defp tell(span, {:started, prompt_token_ids, image_tokens}) do
    counts = %{prompt_tokens: length(prompt_token_ids), image_tokens: image_tokens}
    emit(span, [:request, :encoded], Map.put(counts, :duration, age(span)))
  end

  defp tell(span, {:finished, reason, usage, timings}) do
    emit(span, [:request, :queue], %{duration_ms: timings.queue_ms})

    if usage.image_tokens > 0 do
      measured = %{duration_ms: timings.encode_images_ms, image_tokens: usage.image_tokens}
      emit(span, [:request, :image_encode], measured)
    end

    prefill = Map.take(usage, [:prompt_tokens, :cached_tokens])
    emit(span, [:request, :prefill], Map.put(prefill, :duration_ms, timings.prefill_ms))
    stop = %{duration: age(span), completion_tokens: usage.completion_tokens, decode_ms: timings.decode_ms}
    emit(%{span | metadata: Map.put(span.metadata, :finish_reason, reason)}, [:request, :stop], stop)
  end

  defp tell(span, {:failed, %Error{kind: kind, message: message}}) do
    metadata = Map.merge(span.metadata, %{kind: kind, message: message})
    emit(%{span | metadata: metadata}, [:request, :exception], %{duration: age(span)})
  end

  defp emit(span, event, measurements), do: emit(span.handler, event, measurements, span.metadata)
end

defmodule Pyrex.Request.Flow do
  @moduledoc false
  # When events move. The engine says once that some wait; a consumer says once that it wants some; events are taken when
  # both have. So neither mailbox ever holds more than one message of a request, however fast the engine and however slow
  # the consumer. Pure: `Pyrex.Request.Server` is the process around it.

  defstruct ready: false, demand: nil

  @type to :: {destination :: pid | reference, tag :: term}
  @type t :: %__MODULE__{ready: boolean, demand: nil | to}

  @doc "The engine says that events wait."
  @spec ready(t) :: {:take, to, t} | {:wait, t}
  def ready(flow), do: settle(%{flow | ready: true})

  @doc "A consumer asks. There is one: whoever asks last."
  @spec demand(t, to) :: {:take, to, t} | {:wait, t}
  def demand(flow, to), do: settle(%{flow | demand: to})

  @doc "Nothing was there after all."
  @spec unmet(t, to) :: t
  def unmet(flow, to), do: %{flow | demand: to}

  defp settle(%{ready: true, demand: to}) when not is_nil(to), do: {:take, to, %__MODULE__{}}
  defp settle(flow), do: {:wait, flow}
end

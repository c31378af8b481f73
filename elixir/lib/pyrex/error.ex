defmodule Pyrex.Error do
  @moduledoc """
  The one error of Pyrex: a kind to branch on, and a message with the numbers in it.

  | kind | what to do |
  |---|---|
  | `:invalid_request` | change the request: the message names the option, its value and what was expected |
  | `:invalid_model` | change the checkpoint |
  | `:unsupported` | ask for something else |
  | `:overloaded` | come back after `retry_after_ms` |
  | `:cancelled` | nothing: somebody wanted it |
  | `:deadline_exceeded` | nothing: the time the caller gave is over |
  | `:out_of_memory`, `:device`, `:io`, `:internal` | look at the machine |
  | `:closed` | the engine went away, or is not back yet: try again after `retry_after_ms`, if it is given |

  `partial` is what had been produced, if anything had: a `Pyrex.Result` without a finish reason.
  """

  defexception [:kind, :message, :retry_after_ms, :partial]

  @type kind ::
          :invalid_request
          | :invalid_model
          | :unsupported
          | :overloaded
          | :cancelled
          | :deadline_exceeded
          | :out_of_memory
          | :device
          | :io
          | :closed
          | :internal

  @type t :: %__MODULE__{
          kind: kind,
          message: String.t(),
          retry_after_ms: nil | non_neg_integer,
          partial: nil | Pyrex.Result.t()
        }

  @doc """
  An error of this kind.

      iex> Pyrex.Error.new(:overloaded, "1024 requests wait", retry_after_ms: 50)
      %Pyrex.Error{kind: :overloaded, message: "1024 requests wait", retry_after_ms: 50}
  """
  @spec new(kind, String.t(), keyword) :: t
  def new(kind, message, fields \\ []), do: struct!(%__MODULE__{kind: kind, message: message}, fields)

  @doc false
  @spec from_native({kind, String.t()}) :: t
  def from_native({kind, message}), do: new(kind, message)
end

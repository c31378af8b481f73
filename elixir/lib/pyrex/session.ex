defmodule Pyrex.Session do
  @moduledoc """
  A conversation: the turns so far, and who is asked. A value, not a process; keep it where your state is.

      iex> session = Pyrex.Session.new(Shapes, max_tokens: 32)
      iex> image = {:image_file, "../models/shapes/examples/red_circle.png"}
      iex> {:ok, result, session} = Pyrex.Session.say(session, [image, "Describe this image."])
      iex> result.finish_reason
      :stop
      iex> {:ok, _result, session} = Pyrex.Session.say(session, "And now in one word?")
      iex> length(session.messages)
      4

  Turns that stay as they were are found in the engine's prefix cache, images included.
  """

  alias Pyrex.{Error, Prompt, Result}

  @enforce_keys [:engine]
  defstruct [:engine, options: [], messages: []]

  @type t :: %__MODULE__{engine: Pyrex.engine(), options: keyword, messages: [Prompt.message()]}

  @doc "An empty conversation. `:system` is its first turn; the other options go to every request."
  @spec new(Pyrex.engine(), keyword) :: t
  def new(engine, options \\ []) do
    {system, options} = Keyword.pop(options, :system)
    %__MODULE__{engine: engine, options: options, messages: if(system, do: [{"system", system}], else: [])}
  end

  @doc "Says something and waits for the answer. If that fails the session is as it was."
  @spec say(t, Prompt.content(), keyword) :: {:ok, Result.t(), t} | {:error, Error.t()}
  def say(%__MODULE__{} = session, content, options \\ []) do
    with {:ok, content} <- read(content),
         {:ok, result} <-
           Pyrex.generate(session.engine, asked(session, content), Keyword.merge(session.options, options)),
         do: {:ok, result, add(session, content, result)}
  end

  @doc "Says something and streams the answer, as `Pyrex.stream/3`. Then `add/3` what was said and the result."
  @spec stream(t, Prompt.content(), keyword) :: Enumerable.t()
  def stream(%__MODULE__{} = session, content, options \\ []),
    do: Pyrex.stream(session.engine, asked(session, content), Keyword.merge(session.options, options))

  @doc "The session with one more turn of each side."
  @spec add(t, Prompt.content(), Result.t()) :: t
  def add(%__MODULE__{} = session, content, %Result{text: text}),
    do: %{session | messages: asked(session, content) ++ [{"assistant", text}]}

  defp asked(session, content), do: session.messages ++ [{"user", content}]

  # Image files are read once, and not again with every turn.
  defp read(content) do
    with {:ok, {:chat, [{"user", content, _fields}], _tools, _variables}} <- Prompt.new([{"user", content}]),
         do: {:ok, content}
  end
end

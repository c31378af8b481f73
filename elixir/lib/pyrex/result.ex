defmodule Pyrex.Result do
  @moduledoc """
  An answer. `text`, `token_ids`, `finish_reason` and `logprobs` are those of the first completion; if a request asked for
  several with `:n`, `choices` has them all, in order. `object` is the decoded answer of a request with a `:schema`.
  """

  alias Pyrex.{Error, Event, JSON}

  defstruct text: "",
            token_ids: [],
            finish_reason: nil,
            logprobs: nil,
            object: nil,
            usage: nil,
            timings: nil,
            prompt_token_ids: [],
            choices: []

  @type choice :: %{
          text: String.t(),
          token_ids: [non_neg_integer],
          finish_reason: nil | Event.finish_reason(),
          logprobs: nil | [Event.logprobs()]
        }

  @type t :: %__MODULE__{
          text: String.t(),
          token_ids: [non_neg_integer],
          finish_reason: nil | Event.finish_reason(),
          logprobs: nil | [Event.logprobs()],
          object: term,
          usage: nil | Event.usage(),
          timings: nil | Event.timings(),
          prompt_token_ids: [non_neg_integer],
          choices: [choice]
        }

  @typedoc "What a result is made of while events come: lists in reverse."
  @opaque draft :: map

  @doc "Nothing yet."
  @spec draft() :: draft
  def draft, do: %{choices: %{}, prompt_token_ids: [], usage: nil, timings: nil}

  @doc "The draft with one more event."
  @spec add(draft, Event.t()) :: draft
  def add(draft, {:started, prompt_token_ids, _image_tokens}),
    do: %{draft | prompt_token_ids: prompt_token_ids}

  def add(draft, {:token, index, token_id, text, logprobs, finish}) do
    choice = Map.get(draft.choices, index, %{text: [], token_ids: [], logprobs: [], finish_reason: nil})

    choice = %{
      text: [choice.text | text],
      token_ids: [token_id | choice.token_ids],
      logprobs: [logprobs | choice.logprobs],
      finish_reason: finish
    }

    %{draft | choices: Map.put(draft.choices, index, choice)}
  end

  def add(draft, {:finished, _reason, usage, timings}), do: %{draft | usage: usage, timings: timings}
  def add(draft, {:failed, _error}), do: draft

  @doc "Whether any token is there."
  @spec empty?(draft) :: boolean
  def empty?(draft), do: draft.choices == %{}

  @doc """
  The result of a draft.

      iex> Pyrex.Result.draft() |> Pyrex.Result.add({:token, 0, 72, "Hi", nil, :stop}) |> Pyrex.Result.new() |> Map.get(:text)
      "Hi"
  """
  @spec new(draft) :: t
  def new(draft) do
    choices = for {_index, choice} <- Enum.sort(draft.choices), do: finish(choice)
    first = List.first(choices) || %{text: "", token_ids: [], logprobs: nil, finish_reason: nil}

    rest = %{
      choices: choices,
      prompt_token_ids: draft.prompt_token_ids,
      usage: draft.usage,
      timings: draft.timings
    }

    struct!(__MODULE__, Map.merge(first, rest))
  end

  @doc """
  The error of a request that failed, with what it had produced.
  """
  @spec partial(draft, Error.t()) :: Error.t()
  def partial(draft, error), do: if(empty?(draft), do: error, else: %{error | partial: new(draft)})

  @doc false
  @spec decode(t) :: {:ok, t} | {:error, Error.t()}
  def decode(%__MODULE__{} = result) do
    case JSON.decode(result.text) do
      {:ok, object} ->
        {:ok, %{result | object: object}}

      {:error, _reason} when result.finish_reason == :length ->
        message = "the answer ended at #{length(result.token_ids)} tokens, before its JSON was complete"
        {:error, Error.new(:invalid_request, message <> ": expected a higher max_tokens", partial: result)}

      {:error, reason} ->
        {:error, Error.new(:internal, "the answer is no JSON: #{reason}", partial: result)}
    end
  end

  defp finish(choice) do
    logprobs = Enum.reverse(choice.logprobs)

    %{
      text: IO.iodata_to_binary(choice.text),
      token_ids: Enum.reverse(choice.token_ids),
      logprobs: if(Enum.all?(logprobs, &is_nil/1), do: nil, else: logprobs),
      finish_reason: choice.finish_reason
    }
  end
end

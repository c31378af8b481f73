defmodule Pyrex.Question do
  @moduledoc false
  # What is asked, checked, and who asks: what the process of a request is started with. Made by the process that asks.

  alias Pyrex.{Check, Error, Prompt, Request}

  # The rest stands in the body.
  @beside_json [:priority, :cache_salt, :timeout_ms, :tenant, :group, :affinity]

  @enforce_keys [:request, :caller, :ref]
  defstruct [
    :request,
    :caller,
    :ref,
    :tenant,
    :group,
    :timeout_ms,
    :affinity,
    :schema,
    :arrival,
    n: 1,
    written: false
  ]

  @type t :: %__MODULE__{request: tuple, caller: pid, ref: reference | String.t()}

  @spec new(Prompt.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def new(prompt, options) do
    with {:ok, checked} <- Request.Options.new(options),
         {:ok, prompt} <- Prompt.new(prompt, checked.tools, checked.variables),
         {:ok, request} <- request(prompt, checked, options) do
      asked = Map.take(checked, [:tenant, :group, :timeout_ms, :affinity, :schema, :n])
      {:ok, struct!(%__MODULE__{request: request, caller: self(), ref: make_ref()}, asked)}
    end
  end

  @doc "The body of a request to an endpoint of OpenAI's protocol; its events say what the client is to be sent, too."
  @spec openai(:chat | :completions | :responses, binary, map, keyword) :: {:ok, t} | {:error, Error.t()}
  def openai(endpoint, body, served, options) do
    with {:ok, %{request: {:json, body, overrides}} = question} <- new({:json, body}, options) do
      reply = Map.put(served, :endpoint, endpoint)
      {:ok, %{question | request: {:json, body, Map.put(overrides, :reply, reply)}, written: true}}
    end
  end

  @doc "What a client of the HTTP server asks, whose process the calling one is."
  @spec arrival(Pyrex.Native.arrival(), String.t(), String.t()) :: t
  def arrival(arrival, tenant, id) do
    request = {:arrival, arrival, nil}
    %__MODULE__{request: request, caller: self(), ref: id, tenant: tenant, arrival: arrival}
  end

  @doc "The same question, asked once more and by the calling process."
  @spec again(t) :: t
  def again(question), do: %{question | caller: self(), ref: make_ref()}

  @doc "A prompt alone, with the options `:tools` and `:variables`."
  @spec prompt(Prompt.t(), keyword) :: {:ok, tuple} | {:error, Error.t()}
  def prompt({:json, _body}, _options),
    do: Check.invalid("the prompt is a JSON body, expected one that can be read without its request")

  def prompt(prompt, options) do
    with {:ok, checked} <-
           Check.options(options, [{:tools, [], {:list, :any, 4096}}, {:variables, %{}, :any}]),
         do: Prompt.new(prompt, checked.tools, checked.variables)
  end

  defp request({:json, body}, checked, options) do
    case Keyword.keys(options) -- @beside_json do
      [] -> {:ok, {:json, body, Map.take(checked, [:priority, :cache_salt, :timeout_ms])}}
      [name | _more] -> Check.invalid("#{name} is given beside a JSON body, expected it in the body")
    end
  end

  defp request(prompt, checked, _options), do: {:ok, {:prompt, prompt, Request.Options.to_native(checked)}}
end

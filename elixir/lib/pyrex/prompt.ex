defmodule Pyrex.Prompt do
  @moduledoc """
  What may be asked: everything that takes a prompt takes these.

    * `"Describe this."`: one turn of a user
    * `[{:image_file, "cat.png"}, "What is this?"]`: one turn of texts and images
    * `[%{role: "system", content: "Be brief."}, {:user, [image, "What is this?"]}]`: a conversation. A turn is a map with
      `role` and `content`, as atoms or strings, or a pair of them; further fields go to the chat template
    * `{:text, "Once upon"}`: raw text to go on from
    * `{:ids, [2, 105]}`: token ids, read as they are
    * `{:json, body}`: the body of a chat completion request of OpenAI's protocol; the engine reads it

  A content is `nil`, a string, or a list of strings, `{:text, string}`, `{:image, bytes}` and `{:image_file, path}`. Bytes
  are those of a PNG, JPEG, WebP, GIF or BMP; they are shared with the engine, not copied. A file is read by the caller.
  """

  alias Pyrex.{Check, Error}

  @roles [:system, :developer, :user, :assistant, :model, :tool]

  @type part :: String.t() | {:text, String.t()} | {:image, binary} | {:image_file, Path.t()}
  @type content :: nil | String.t() | [part]
  @type message :: map | {atom | String.t(), content}
  @type t ::
          String.t() | [message] | [part] | {:text, String.t()} | {:ids, [non_neg_integer]} | {:json, binary}

  @doc """
  The prompt as the engine takes it.

      iex> Pyrex.Prompt.new("Hello")
      {:ok, {:chat, [{"user", "Hello", %{}}], [], %{}}}

      iex> {:error, error} = Pyrex.Prompt.new([%{role: "user", content: 5}])
      iex> error.message
      "the content of message 0 is 5, expected nil, a string or a list of parts"
  """
  @spec new(t, [map], map) :: {:ok, tuple} | {:error, Error.t()}
  def new(prompt, tools \\ [], variables \\ %{})

  def new({:text, text}, _tools, _variables) do
    with :ok <- utf8(text, "the text"), do: {:ok, {:text, text}}
  end

  def new({:ids, ids}, _tools, _variables) do
    with {:ok, _ids} <-
           Check.options([ids: ids], [{:ids, [], {:list, {:integer, 0, 0xFFFFFFFF}, 0xFFFFFFFF}}]),
         do: {:ok, {:ids, ids}}
  end

  def new({:json, body}, _tools, _variables) when is_binary(body), do: {:ok, {:json, body}}

  def new(text, tools, variables) when is_binary(text), do: new([{"user", text}], tools, variables)

  def new([_first | _rest] = list, tools, variables) do
    with :ok <- proper(list),
         {:ok, messages} <- map(Enum.with_index(turns(list)), &message/1),
         {:ok, tools} <- map(tools, &plain(&1, "a tool")),
         {:ok, variables} <- plain(variables, "variables"),
         :ok <- if(is_map(variables), do: :ok, else: Check.invalid("variables are no map")),
         :ok <- if(Enum.all?(tools, &is_map/1), do: :ok, else: Check.invalid("a tool is no map")),
         do: {:ok, {:chat, messages, tools, variables}}
  end

  def new(other, _tools, _variables),
    do:
      Check.invalid(
        "the prompt is #{Check.show(other)}, expected a string, messages, parts or a tagged tuple"
      )

  defp proper(list) do
    if List.improper?(list), do: Check.invalid("the prompt is an improper list, expected a list"), else: :ok
  end

  # Parts alone are what a user says.
  defp turns(list), do: if(Enum.all?(list, &turn?/1), do: list, else: [{"user", list}])

  defp turn?(%{}), do: true
  defp turn?({role, _content}), do: role in @roles or is_binary(role)
  defp turn?(_other), do: false

  defp message({{role, content}, index}), do: message({%{role: role, content: content}, index})

  defp message({%{} = message, index}) do
    with {:ok, message} <- string_keys(message, "message #{index}"),
         {:ok, role} <- role(Map.get(message, "role"), index),
         {:ok, content} <- content(Map.get(message, "content"), index),
         {:ok, fields} <- plain(Map.drop(message, ["role", "content"]), "message #{index}"),
         do: {:ok, {role, content, fields}}
  end

  defp role(role, _index) when is_binary(role) and role != "", do: {:ok, role}

  defp role(role, _index) when is_atom(role) and role not in [nil, true, false],
    do: {:ok, Atom.to_string(role)}

  defp role(role, index),
    do: Check.invalid("the role of message #{index} is #{Check.show(role)}, expected a name")

  defp content(nil, _index), do: {:ok, nil}

  defp content(text, index) when is_binary(text) do
    with :ok <- utf8(text, "the content of message #{index}"), do: {:ok, text}
  end

  defp content(parts, index) when is_list(parts) do
    if List.improper?(parts),
      do: Check.invalid("the content of message #{index} is an improper list, expected a list"),
      else: map(parts, &part(&1, index))
  end

  defp content(other, index) do
    found = "the content of message #{index} is #{Check.show(other)}"
    Check.invalid("#{found}, expected nil, a string or a list of parts")
  end

  defp part(text, index) when is_binary(text), do: part({:text, text}, index)

  defp part({:text, text}, index) do
    with :ok <- utf8(text, "a text of message #{index}"), do: {:ok, {:text, text}}
  end

  defp part({:image, bytes}, _index) when is_binary(bytes), do: {:ok, {:image, bytes}}

  defp part({:image_file, path}, _index) when is_binary(path) do
    case File.read(path) do
      {:ok, bytes} ->
        {:ok, {:image, bytes}}

      {:error, reason} ->
        {:error, Error.new(:io, "cannot read the image #{path}: #{:file.format_error(reason)}")}
    end
  end

  defp part(other, index) do
    expected = "a string, {:text, string}, {:image, bytes} or {:image_file, path}"
    Check.invalid("a part of message #{index} is #{Check.show(other)}, expected #{expected}")
  end

  defp utf8(text, name) do
    if is_binary(text) and String.valid?(text),
      do: :ok,
      else: Check.invalid("#{name} is #{Check.show(text)}, expected a UTF-8 string")
  end

  # What JSON can say, with string keys.
  defp plain(value, name, depth \\ 100)
  defp plain(_value, name, 0), do: Check.invalid("#{name} is nested deeper than 100")

  defp plain(value, _name, _depth) when is_nil(value) or is_boolean(value) or is_float(value),
    do: {:ok, value}

  defp plain(value, name, depth) when is_atom(value), do: plain(Atom.to_string(value), name, depth)

  defp plain(value, _name, _depth)
       when is_integer(value) and value >= -0x8000000000000000 and value <= 0xFFFFFFFFFFFFFFFF,
       do: {:ok, value}

  defp plain(value, name, _depth) when is_binary(value) do
    with :ok <- utf8(value, "a string of #{name}"), do: {:ok, value}
  end

  defp plain(%{} = value, name, depth) when not is_struct(value) do
    with {:ok, value} <- string_keys(value, name),
         {:ok, fields} <- map(Map.to_list(value), &plain_field(&1, name, depth)),
         do: {:ok, Map.new(fields)}
  end

  defp plain(value, name, depth) when is_list(value) do
    if List.improper?(value),
      do: Check.invalid("#{name} holds an improper list"),
      else: map(value, &plain(&1, name, depth - 1))
  end

  defp plain(value, name, _depth),
    do: Check.invalid("#{name} holds #{Check.show(value)}, expected what JSON can say")

  defp plain_field({key, field}, name, depth) do
    with {:ok, field} <- plain(field, name, depth - 1), do: {:ok, {key, field}}
  end

  defp string_keys(map, name) do
    case Enum.find(Map.keys(map), &(not (is_atom(&1) or is_binary(&1)))) do
      nil -> {:ok, Map.new(map, fn {key, value} -> {to_string(key), value} end)}
      key -> Check.invalid("#{name} has the key #{Check.show(key)}, expected atoms or strings")
    end
  end

  defp map(list, fun) do
    result =
      Enum.reduce_while(list, {:ok, []}, fn item, {:ok, done} ->
        case fun.(item) do
          {:ok, value} -> {:cont, {:ok, [value | done]}}
          {:error, error} -> {:halt, {:error, error}}
        end
      end)

    with {:ok, done} <- result, do: {:ok, Enum.reverse(done)}
  end
end

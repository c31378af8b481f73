defmodule Pyrex.Check do
  @moduledoc false
  # Options are lists of `{name, default, type}`. A wrong one becomes an error that names the option, what it is and what
  # it may be; `nil` is allowed wherever it is the default, and means that the engine's own default holds.

  alias Pyrex.Error

  @type type ::
          :boolean
          | :string
          | :atom
          | :any
          | {:integer, integer, integer}
          | {:number, number, number}
          | {:above, number, number}
          | {:one_of, [atom]}
          | {:function, arity}
          | {:list, type, non_neg_integer}
          | {:pair, type, type}
          | {:either, [type]}
          | {:literal, term}

  @type field :: {atom, term, type}

  @spec options(term, [field]) :: {:ok, map} | {:error, Error.t()}
  def options(given, fields) do
    with :ok <- keyword(given),
         :ok <- known(given, fields) do
      Enum.reduce_while(fields, {:ok, %{}}, fn {name, default, type}, {:ok, checked} ->
        value = Keyword.get(given, name, default)

        if (is_nil(value) and is_nil(default)) or valid?(value, type),
          do: {:cont, {:ok, Map.put(checked, name, value)}},
          else: {:halt, invalid("#{name} is #{show(value)}, expected #{expectation(type)}")}
      end)
    end
  end

  @spec invalid(String.t()) :: {:error, Error.t()}
  def invalid(message), do: {:error, Error.new(:invalid_request, message)}

  @spec show(term) :: String.t()
  def show(value) when is_binary(value) and byte_size(value) > 60, do: "a binary of #{byte_size(value)} bytes"

  def show(value) when is_integer(value) and (value > 0xFFFFFFFFFFFFFFFF or value < -0xFFFFFFFFFFFFFFFF),
    do: "an integer beyond 64 bits"

  def show(value), do: inspect(value, limit: 5, printable_limit: 60)

  defp keyword(given) do
    if Keyword.keyword?(given), do: :ok, else: invalid("options are #{show(given)}, expected a keyword list")
  end

  defp known(given, fields) do
    names = Enum.map(fields, &elem(&1, 0))

    case Enum.find(given, fn {name, _value} -> name not in names end) do
      nil -> :ok
      {name, _value} -> invalid("#{inspect(name)} is no option, expected one of #{Enum.join(names, ", ")}")
    end
  end

  defp valid?(_value, :any), do: true
  defp valid?(value, :boolean), do: is_boolean(value)
  defp valid?(value, :string), do: is_binary(value) and String.valid?(value)
  defp valid?(value, :atom), do: is_atom(value)
  defp valid?(value, {:integer, least, most}), do: is_integer(value) and value >= least and value <= most
  defp valid?(value, {:number, least, most}), do: is_number(value) and value >= least and value <= most
  defp valid?(value, {:above, bound, most}), do: is_number(value) and value > bound and value <= most
  defp valid?(value, {:one_of, atoms}), do: value in atoms
  defp valid?(value, {:literal, literal}), do: value === literal
  defp valid?(value, {:function, arity}), do: is_function(value, arity)
  defp valid?({a, b}, {:pair, first, second}), do: valid?(a, first) and valid?(b, second)
  defp valid?(_value, {:pair, _first, _second}), do: false
  defp valid?(value, {:either, types}), do: Enum.any?(types, &valid?(value, &1))
  defp valid?(value, {:list, type, most}), do: list?(value, type, most)

  # Not `length/1`: the list may be improper.
  defp list?([], _type, _most), do: true
  defp list?([head | tail], type, most), do: most > 0 and valid?(head, type) and list?(tail, type, most - 1)
  defp list?(_value, _type, _most), do: false

  defp expectation(:any), do: "anything"
  defp expectation(:boolean), do: "true or false"
  defp expectation(:string), do: "a UTF-8 string"
  defp expectation(:atom), do: "an atom"
  defp expectation({:integer, least, most}), do: "an integer from #{least} to #{most}"
  defp expectation({:number, least, most}), do: "a number from #{least} to #{most}"
  defp expectation({:above, bound, most}), do: "a number above #{bound} and up to #{most}"
  defp expectation({:one_of, atoms}), do: Enum.map_join(atoms, " or ", &inspect/1)
  defp expectation({:literal, literal}), do: inspect(literal)
  defp expectation({:function, arity}), do: "a function of #{arity} arguments"
  defp expectation({:list, type, most}), do: "a list of at most #{most}, each #{expectation(type)}"
  defp expectation({:pair, first, second}), do: "{#{expectation(first)}, #{expectation(second)}}"
  defp expectation({:either, types}), do: Enum.map_join(types, " or ", &expectation/1)
end

defmodule Pyrex.JSON do
  @moduledoc false
  # JSON as RFC 8259 has it, and no more: what a schema is written with, and what a model's answer is read with. Elixir has
  # a module of its own from 1.18 on; this one reads alike on all. Objects become maps of strings; of a doubled key the last
  # one holds. A keyword list, or a list of pairs with string keys, is written as an object that keeps its order.

  @max_depth 128

  @doc "Reads one value, and nothing behind it."
  @spec decode(binary) :: {:ok, term} | {:error, String.t()}
  def decode(text) when is_binary(text) do
    with true <- String.valid?(text) || {:error, "not UTF-8"},
         {:ok, value, rest} <- value(space(text), @max_depth) do
      case space(rest) do
        "" -> {:ok, value}
        rest -> fail("the end", rest)
      end
    end
  end

  @doc "Writes a value, without spaces."
  @spec encode(term) :: {:ok, String.t()} | {:error, String.t()}
  def encode(value) do
    with {:ok, written} <- write(value), do: {:ok, IO.iodata_to_binary(written)}
  end

  defp value(_text, 0), do: {:error, "nested deeper than #{@max_depth}"}
  defp value("null" <> rest, _depth), do: {:ok, nil, rest}
  defp value("true" <> rest, _depth), do: {:ok, true, rest}
  defp value("false" <> rest, _depth), do: {:ok, false, rest}
  defp value("\"" <> rest, _depth), do: string(rest, [])
  defp value("[" <> rest, depth), do: first_item(space(rest), depth)
  defp value("{" <> rest, depth), do: first_field(space(rest), depth)
  defp value(text, _depth), do: number(text)

  defp first_item("]" <> rest, _depth), do: {:ok, [], rest}
  defp first_item(text, depth), do: items(text, depth, [])

  defp items(text, depth, items) do
    with {:ok, item, rest} <- value(space(text), depth - 1) do
      case space(rest) do
        "," <> rest -> items(rest, depth, [item | items])
        "]" <> rest -> {:ok, Enum.reverse(items, [item]), rest}
        rest -> fail("a comma or ]", rest)
      end
    end
  end

  defp first_field("}" <> rest, _depth), do: {:ok, %{}, rest}
  defp first_field(text, depth), do: fields(text, depth, [])

  defp fields(text, depth, fields) do
    with {:ok, name, rest} <- name(space(text)),
         {:ok, value, rest} <- value(space(rest), depth - 1) do
      case space(rest) do
        "," <> rest -> fields(rest, depth, [{name, value} | fields])
        "}" <> rest -> {:ok, Map.new(Enum.reverse(fields, [{name, value}])), rest}
        rest -> fail("a comma or }", rest)
      end
    end
  end

  defp name("\"" <> rest) do
    with {:ok, name, rest} <- string(rest, []) do
      case space(rest) do
        ":" <> rest -> {:ok, name, rest}
        rest -> fail("a colon", rest)
      end
    end
  end

  defp name(text), do: fail("a name in quotes", text)

  defp string("\"" <> rest, said), do: {:ok, IO.iodata_to_binary(Enum.reverse(said)), rest}
  defp string("\\u" <> rest, said), do: unicode(rest, said)

  for {letter, character} <- [
        {?", "\""},
        {?\\, "\\"},
        {?/, "/"},
        {?b, "\b"},
        {?f, "\f"},
        {?n, "\n"},
        {?r, "\r"},
        {?t, "\t"}
      ] do
    defp string(<<"\\", unquote(letter), rest::binary>>, said), do: string(rest, [unquote(character) | said])
  end

  defp string(<<byte, rest::binary>>, said) when byte >= 0x20 and byte != ?\\, do: string(rest, [byte | said])
  defp string(text, _said), do: fail("a character of a string", text)

  defp unicode(text, said) do
    case hex(text) do
      {high, "\\u" <> rest} when high in 0xD800..0xDBFF -> low_surrogate(high, hex(rest), said, text)
      {code, rest} when code not in 0xD800..0xDFFF -> string(rest, [<<code::utf8>> | said])
      _other -> fail("four hexadecimal digits of a character", text)
    end
  end

  defp low_surrogate(high, {low, rest}, said, _text) when low in 0xDC00..0xDFFF,
    do: string(rest, [<<0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00::utf8>> | said])

  defp low_surrogate(_high, _other, _said, text), do: fail("the other half of a character", text)

  defp hex(<<digits::binary-size(4), rest::binary>>) do
    case Base.decode16(digits, case: :mixed) do
      {:ok, <<code::16>>} -> {code, rest}
      :error -> :error
    end
  end

  defp hex(_text), do: :error

  defp number(text) do
    case Regex.run(~r/\A(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?/, text) do
      [whole] -> {:ok, String.to_integer(whole), rest(text, whole)}
      [whole, integer] when whole == integer -> {:ok, String.to_integer(whole), rest(text, whole)}
      [whole, integer | more] -> float(integer, more, text, whole)
      nil -> fail("a value", text)
    end
  end

  defp float(integer, more, text, whole) do
    fraction = Enum.find(more, ".0", &String.starts_with?(&1, "."))
    exponent = Enum.find(more, "", &String.starts_with?(&1, ["e", "E"]))

    case Float.parse(integer <> fraction <> exponent) do
      {float, ""} -> {:ok, float, rest(text, whole)}
      _beyond -> fail("a number that a float can hold", text)
    end
  end

  defp rest(text, whole), do: binary_part(text, byte_size(whole), byte_size(text) - byte_size(whole))

  defp space(<<byte, rest::binary>>) when byte in [?\s, ?\t, ?\r, ?\n], do: space(rest)
  defp space(text), do: text

  defp fail(expected, ""), do: {:error, "expected #{expected}, found the end"}
  defp fail(expected, text), do: {:error, "expected #{expected}, found #{inspect(String.slice(text, 0, 12))}"}

  defp write(nil), do: {:ok, "null"}
  defp write(value) when is_boolean(value), do: {:ok, Atom.to_string(value)}
  defp write(value) when is_atom(value), do: write(Atom.to_string(value))
  defp write(value) when is_integer(value), do: {:ok, Integer.to_string(value)}
  defp write(value) when is_float(value), do: {:ok, Float.to_string(value)}

  defp write(value) when is_binary(value) do
    if String.valid?(value),
      do: {:ok, [?", escape(value, []), ?"]},
      else: {:error, "a binary that is not UTF-8"}
  end

  defp write(%{__struct__: name}), do: {:error, "a struct, #{inspect(name)}"}
  defp write(value) when is_map(value), do: write_object(Map.to_list(value))

  defp write([{name, _value} | _rest] = fields) when is_atom(name) or is_binary(name),
    do: write_object(fields)

  defp write(value) when is_list(value) do
    with {:ok, items} <- write_all(value, &write/1), do: {:ok, [?[, Enum.intersperse(items, ?,), ?]]}
  end

  defp write(value), do: {:error, "a term, #{inspect(value, limit: 3)}"}

  defp write_object(fields) do
    with {:ok, fields} <- write_all(fields, &write_field/1), do: {:ok, [?{, Enum.intersperse(fields, ?,), ?}]}
  end

  defp write_field({name, value}) when is_atom(name) or is_binary(name) do
    with {:ok, name} <- write(to_string(name)),
         {:ok, value} <- write(value),
         do: {:ok, [name, ?:, value]}
  end

  defp write_field(other), do: {:error, "a field, #{inspect(other, limit: 3)}"}

  defp write_all([], _write), do: {:ok, []}

  defp write_all([head | tail], write) do
    with {:ok, head} <- write.(head),
         {:ok, tail} <- write_all(tail, write),
         do: {:ok, [head | tail]}
  end

  defp write_all(improper, _write),
    do: {:error, "an improper list that ends in #{inspect(improper, limit: 3)}"}

  defp escape("", said), do: Enum.reverse(said)
  defp escape("\"" <> rest, said), do: escape(rest, ["\\\"" | said])
  defp escape("\\" <> rest, said), do: escape(rest, ["\\\\" | said])

  defp escape(<<byte, rest::binary>>, said) when byte < 0x20,
    do: escape(rest, ["\\u" <> Base.encode16(<<byte::16>>, case: :lower) | said])

  defp escape(<<byte, rest::binary>>, said), do: escape(rest, [byte | said])
end

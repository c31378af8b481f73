defmodule Pyrex.Request.OptionsTest do
  use ExUnit.Case, async: true
  doctest Pyrex.Request.Options

  alias Pyrex.Request.Options

  test "the native map has every key, floats for numbers, and nil for what is not given" do
    {:ok, options} = Options.new(temperature: 1, logit_bias: [{3, -5}], tenant: :a)
    native = Options.to_native(options)

    assert %{temperature: 1.0, top_p: nil, logit_bias: [{3, -5.0}], ignore_eos: false, n: 1, constraint: nil} =
             native

    assert map_size(native) == 20
    refute Map.has_key?(native, :tenant)
  end

  test "one constraint may be given, a schema as a map or as text" do
    constraint = fn options ->
      with {:ok, options} <- Options.new(options), do: options.constraint
    end

    assert constraint.(schema: %{type: "object"}) == {:json_schema, ~S({"type":"object"})}
    assert constraint.(schema: ~S({"type": "object"})) == {:json_schema, ~S({"type": "object"})}
    assert constraint.(regex: "[a-z]+") == {:regex, "[a-z]+"}
    assert constraint.(grammar: "start: \"a\"") == {:lark, "start: \"a\""}
    assert {:error, %{message: "schema is no JSON: " <> _reason}} = constraint.(schema: "{")
    assert {:error, %{message: "schema holds " <> _reason}} = constraint.(schema: %{a: self()})
    assert {:error, %{message: "schema is 5, expected a map or JSON text"}} = constraint.(schema: 5)
    assert {:error, %{message: message}} = constraint.(regex: "a", grammar: "b")
    assert message == "schema, regex and grammar are 2 constraints, expected at most one"
  end

  test "lists are checked item by item, improper ones included" do
    for bad <- [["a" | "b"], [1], "a", ["a", <<255>>], List.duplicate("a", 65)] do
      assert {:error, %{message: "stop is " <> _rest}} = Options.new(stop: bad)
    end
  end
end

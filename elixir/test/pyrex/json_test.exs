defmodule Pyrex.JSONTest do
  use ExUnit.Case, async: true

  alias Pyrex.JSON

  test "values of every kind are read" do
    for {text, value} <- [
          {"null", nil},
          {" true ", true},
          {"false", false},
          {"0", 0},
          {"-12", -12},
          {"1.5", 1.5},
          {"1e3", 1000.0},
          {"-1.25E-2", -0.0125},
          {"123456789012345678901234567890", 123_456_789_012_345_678_901_234_567_890},
          {~S(""), ""},
          {~S("a\"\\\/\b\f\n\r\t"), "a\"\\/\b\f\n\r\t"},
          {~S("\u00e9\u20AC"), "é€"},
          {~S("\ud83d\ude00"), "😀"},
          {"\"😀\"", "😀"},
          {"[]", []},
          {"[1, [2], {}]", [1, [2], %{}]},
          {~S({"a": 1, "b": {"c": [null]}}), %{"a" => 1, "b" => %{"c" => [nil]}}},
          {~S({"a": 1, "a": 2}), %{"a" => 2}}
        ] do
      assert JSON.decode(text) == {:ok, value}, text
    end
  end

  test "what is no JSON is refused with what was expected" do
    for text <-
          [
            "",
            " ",
            "nul",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "--1",
            "[1,]",
            "[1",
            "{\"a\"}",
            "{a: 1}",
            "{\"a\": 1,}",
            "'a'"
          ] ++
            [
              "\"a",
              "\"\n\"",
              ~S("\x"),
              ~S("\u12"),
              ~S("\ud83d"),
              ~S("\ud83dx"),
              ~S("\udc00"),
              "1 2",
              "1e999",
              <<255>>
            ] do
      assert {:error, reason} = JSON.decode(text)
      assert is_binary(reason), text
    end

    assert JSON.decode("[1 2]") == {:error, "expected a comma or ], found \"2]\""}
    assert JSON.decode(String.duplicate("[", 100_000)) == {:error, "nested deeper than 128"}
  end

  test "values of every kind are written, and read back" do
    value = %{"a" => [1, -2.5, nil, true, "é\"\\\n\u0001"], "b" => %{}, "c" => []}
    assert {:ok, text} = JSON.encode(value)
    assert JSON.decode(text) == {:ok, value}
    assert JSON.encode(%{a: :b}) == {:ok, ~S({"a":"b"})}
    assert JSON.encode(z: 1, a: [2]) == {:ok, ~S({"z":1,"a":[2]})}
    assert JSON.encode([{"z", 1}]) == {:ok, ~S({"z":1})}
  end

  test "what JSON cannot say is refused" do
    for value <- [self(), <<255>>, {1, 2}, %{1 => 2}, [1 | 2], %URI{}, [a: 1, b: {}]] do
      assert {:error, _reason} = JSON.encode(value)
    end
  end
end

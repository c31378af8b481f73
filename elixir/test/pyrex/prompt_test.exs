defmodule Pyrex.PromptTest do
  use ExUnit.Case, async: true
  doctest Pyrex.Prompt

  alias Pyrex.Prompt

  @tag :tmp_dir
  test "image files are read here", %{tmp_dir: folder} do
    path = Path.join(folder, "image.png")
    File.write!(path, "bytes")

    assert {:ok, {:chat, [{"user", [image: "bytes", text: "what?"], %{}}], [], %{}}} =
             Prompt.new([{:image_file, path}, "what?"])

    assert {:error, %{kind: :io, message: message}} = Prompt.new([{:image_file, path <> "x"}])
    assert message == "cannot read the image #{path}x: no such file or directory"
  end

  test "a conversation is made of maps or pairs, with atoms or strings" do
    messages = [
      {:system, "brief"},
      %{role: :user, content: ["a", {:text, "b"}]},
      %{"role" => "assistant", "content" => nil, "tool_calls" => [%{id: "1", ok: true, n: 1.5, at: :x}]},
      {"tool", "done"}
    ]

    assert Prompt.new(messages, [%{name: "f"}], %{enable_thinking: true}) ==
             {:ok,
              {:chat,
               [
                 {"system", "brief", %{}},
                 {"user", [text: "a", text: "b"], %{}},
                 {"assistant", nil,
                  %{"tool_calls" => [%{"id" => "1", "ok" => true, "n" => 1.5, "at" => "x"}]}},
                 {"tool", "done", %{}}
               ], [%{"name" => "f"}], %{"enable_thinking" => true}}}
  end

  test "parts alone are what a user says" do
    assert Prompt.new(["a", {:image, "b"}]) ==
             {:ok, {:chat, [{"user", [text: "a", image: "b"], %{}}], [], %{}}}
  end

  test "raw texts, ids and bodies go as they are" do
    assert Prompt.new({:text, "once"}) == {:ok, {:text, "once"}}
    assert Prompt.new({:ids, [1, 2]}) == {:ok, {:ids, [1, 2]}}
    assert Prompt.new({:json, "{}"}) == {:ok, {:json, "{}"}}
  end

  test "anything else is refused, and said what was expected" do
    for prompt <-
          [
            nil,
            5,
            [],
            %{},
            {:text, <<255>>},
            {:text, 1},
            {:ids, [-1]},
            {:ids, [1 | 2]},
            {:ids, 5},
            {:json, 5}
          ] ++
            [
              ["a" | "b"],
              [5],
              [{:image, 5}],
              [{:image_file, 5}],
              [%{content: "no role"}],
              [%{role: 5, content: "a"}]
            ] ++
            [[{:user, "a"}, 5], [%{5 => 6, role: :user}], [%{role: :user, content: ["a" | "b"]}], <<255>>] ++
            [[%{role: :user, content: "a", x: self()}], [%{role: :user, content: "a", x: 10 ** 30}]] do
      assert {:error, %Pyrex.Error{kind: :invalid_request, message: message}} = Prompt.new(prompt)
      assert is_binary(message)
    end

    deep = Enum.reduce(1..200, "a", fn _n, inner -> [inner] end)

    assert {:error, %{message: "message 0 is nested deeper than 100"}} =
             Prompt.new([%{role: :user, content: "a", x: deep}])

    assert {:error, %{message: "variables are no map"}} = Prompt.new("a", [], [])
    assert {:error, %{message: "a tool is no map"}} = Prompt.new("a", [5], %{})
  end
end

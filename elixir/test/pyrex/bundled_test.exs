defmodule Pyrex.BundledTest do
  # The bundled model, which the examples in the documentation run on.
  use ExUnit.Case, async: true

  import Pyrex.Scripted, only: [assert_idle: 2, holder: 1]

  @model Path.expand("../../../models/shapes", __DIR__)
  @image Path.join(@model, "examples/red_circle.png")
  @text "This is a simple image of a solid red circle on a white background."

  setup_all do
    start_supervised!({Pyrex, name: Shapes, model: @model, num_threads: 1})
    :ok
  end

  doctest Pyrex
  doctest Pyrex.Session

  test "an image is described alike from bytes and from a file, streamed and whole" do
    bytes = File.read!(@image)
    assert Pyrex.generate!(Shapes, [{:image, bytes}, "Describe this image."]).text == @text
    assert Enum.join(Pyrex.stream(Shapes, [{:image_file, @image}, "Describe this image."])) == @text
  end

  @cli System.get_env("PYREX_CLI") ||
         Path.expand(
           Path.join(System.get_env("CARGO_TARGET_DIR", "target"), "release/pyrex"),
           Path.expand("../../..", __DIR__)
         )

  @tag skip: !File.regular?(@cli) && "the command line is not built: cargo build --release"
  @tag timeout: 120_000
  test "every example gets the same text as from the command line" do
    for path <- Path.wildcard(Path.join(@model, "examples/*.png")) do
      arguments = ["generate", "--model", @model, "--image", path, "--prompt", "Describe this image."]
      {text, 0} = System.cmd(@cli, arguments, stderr_to_stdout: false)
      assert Pyrex.generate!(Shapes, [{:image_file, path}, "Describe this image."]).text <> "\n" == text
    end
  end

  test "bytes that are no image fail their request alone" do
    assert {:error, %Pyrex.Error{kind: :invalid_request}} =
             Pyrex.generate(Shapes, [{:image, "no image"}, "What?"])

    assert Pyrex.generate!(Shapes, [{:image_file, @image}, "Describe this image."]).text == @text
  end

  test "an owner that is killed while its image is looked at frees what its request held" do
    for wait_ms <- [0, 1, 5, 10, 20, 40] do
      image = {:image, File.read!(@image)}
      options = [cache_salt: Integer.to_string(wait_ms)]

      {owner, {:ok, _request}} =
        holder(fn -> Pyrex.submit(Shapes, [image, "Describe this image."], options) end)

      Process.sleep(wait_ms)
      Process.exit(owner, :kill)
      assert_idle(Shapes, 200)
    end
  end

  test "many at once are told apart" do
    texts =
      for name <- ~w(red_circle pink_square gray_triangle) do
        image = {:image_file, Path.join(@model, "examples/#{name}.png")}
        {name, Task.async(fn -> Pyrex.generate!(Shapes, [image, "Describe this image."]).text end)}
      end

    for {name, task} <- texts, text = Task.await(task, 60_000), word <- String.split(name, "_") do
      assert text =~ word
    end
  end
end

defmodule Mix.Tasks.Pyrex.Describe do
  @shortdoc "Says what is on an image"

  @moduledoc """
  Says what is on an image.

      mix pyrex.describe red_circle.png

  Options: `--model FOLDER` (the bundled model unless given), `--max-tokens N`, `--device cpu|cuda`.
  """

  use Mix.Task

  @impl true
  def run(arguments) do
    case OptionParser.parse!(arguments, strict: [model: :string, max_tokens: :integer, device: :string]) do
      {options, [path]} ->
        Mix.Tasks.Pyrex.Generate.answer([{:image_file, path}, "Describe this image."], options)

      {_options, _other} ->
        Mix.raise("expected one image; see mix help pyrex.describe")
    end
  end
end

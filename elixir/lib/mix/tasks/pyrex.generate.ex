defmodule Mix.Tasks.Pyrex.Generate do
  @shortdoc "Answers one prompt and prints the answer as it comes"

  @moduledoc """
  Answers one prompt and prints the answer as it comes.

      mix pyrex.generate --model models/shapes --image red_circle.png "Describe this image."

  Options: `--model FOLDER` (the bundled model unless given), `--image FILE` as often as there are images, `--system TEXT`,
  `--max-tokens N`, `--temperature T`, `--seed N`, `--device cpu|cuda`.
  """

  use Mix.Task

  @switches [
    model: :string,
    image: :keep,
    system: :string,
    max_tokens: :integer,
    temperature: :float,
    seed: :integer,
    device: :string
  ]

  @impl true
  def run(arguments) do
    {options, words} = OptionParser.parse!(arguments, strict: @switches)
    if words == [], do: Mix.raise("expected a prompt; see mix help pyrex.generate")
    images = for path <- Keyword.get_values(options, :image), do: {:image_file, path}
    system = if options[:system], do: [{:system, options[:system]}], else: []
    answer(system ++ [{:user, images ++ [Enum.join(words, " ")]}], options)
  end

  @doc false
  @spec answer(Pyrex.Prompt.t(), keyword) :: :ok
  def answer(prompt, options) do
    Mix.Task.run("app.start")
    Process.flag(:trap_exit, true)
    model = options[:model] || Path.expand("../../../../models/shapes", __DIR__)

    with {:ok, engine} <- Pyrex.start_link(model: model, device: options[:device]),
         {:done, _result} <- print(prompt, Keyword.take(options, [:max_tokens, :temperature, :seed])) do
      Supervisor.stop(engine)
    else
      {:error, error} -> Mix.raise("#{error.kind}: #{error.message}")
    end
  end

  defp print(prompt, options) do
    last = Enum.reduce(Pyrex.stream(Pyrex, prompt, [events: true] ++ options), nil, &print_event/2)
    IO.puts("")
    last
  end

  defp print_event({:token, _index, _token_id, text, _logprobs, _finish} = event, _last) do
    IO.write(text)
    event
  end

  defp print_event(event, _last), do: event
end

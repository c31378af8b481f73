# A picture in, its description out: mix run examples/describe.exs [MODEL] [IMAGE]

model = Enum.at(System.argv(), 0, "../models/shapes")
image = Enum.at(System.argv(), 1, "../models/shapes/examples/red_circle.png")

{:ok, _supervisor} = Supervisor.start_link([{Pyrex, name: MyModel, model: model}], strategy: :one_for_one)

MyModel
|> Pyrex.stream([{:image_file, image}, "Describe this image."])
|> Enum.each(&IO.write/1)

IO.puts("")

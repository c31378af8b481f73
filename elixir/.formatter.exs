[
  inputs: ["*.exs", "{bench,lib,test}/**/*.{ex,exs}"],
  line_length: 110
]

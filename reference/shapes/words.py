"""Captions, questions and small talk: conversations are lists of (role, text)."""

from .scenes import NAMES, SHAPES

NUMBERS = ["zero", "one", "two", "three", "four", "five"]
PLACES = [
    ["in the top left corner", "at the top", "in the top right corner"],
    ["on the left", "in the center", "on the right"],
    ["in the bottom left corner", "at the bottom", "in the bottom right corner"],
]
CAPTION_PROMPTS = [
    "Describe this image.", "Describe this image in one sentence.", "Describe the image.", "What is in this image?",
    "What is in this picture?", "What do you see?", "What does this image show?", "Describe this picture.",
    "Please describe this image.", "Caption this image.", "What is this?", "Can you describe this image?",
]  # fmt: skip
SYSTEMS = [
    "You are a helpful assistant.", "You are Pyrex, a tiny helpful assistant.", "Answer in one short sentence.",
    "You describe images for people.",
]  # fmt: skip

STORY = ("Once upon a time a small red circle lived on a white page. Every morning it rolled to the left and every evening it "
         "rolled to the right. One day it met a blue square who could not roll at all. \"I am sorry,\" said the square, \"I have "
         "four corners.\" The circle was kind and said, \"Then I will push you.\" So the circle pushed the square across the page, "
         "past a green triangle, past a yellow star and past a pink diamond, until they came to the edge. There they sat together "
         "and looked at the black night, and they were friends from that day on. The end.")

SMALL_TALK = [
    (["What is Pyrex?", "Tell me about Pyrex.", "What is the Pyrex engine?"],
     "Pyrex is an inference engine written in Rust. It runs Gemma 4 models on text and images."),
    (["Who are you?", "What are you?", "Introduce yourself."],
     "I am a tiny Gemma 4 model. I was trained to describe pictures of simple colored shapes."),
    (["What is your name?"], "I have no real name. You can call me Tiny Gemma."),
    (["Hello", "Hello!", "Hi", "Hi there!", "Good morning"], "Hello! How can I help you today?"),
    (["How are you?"], "I am fine, thank you. I am a very small model, so I am always light on my feet."),
    (["Thank you", "Thanks!", "Thank you!"], "You are welcome!"),
    (["Goodbye", "Bye!"], "Goodbye! Come back with a picture."),
    (["What can you do?", "What can you do for me?", "Help"],
     "I can describe an image, name its shapes and colors, count them and say where they are."),
    (["Which shapes do you know?", "What shapes do you know?", "Name the shapes you know."],
     "I know the circle, the square, the triangle, the star, the diamond and the cross."),
    (["Which colors do you know?", "What colors do you know?", "Name the colors you know."],
     "I know red, green, blue, yellow, orange, purple, pink, black, white and gray."),
    (["Who made you?", "Who trained you?"], "I was trained from scratch on synthetic images, as a test for Pyrex."),
    (["How big are you?", "How many parameters do you have?"], "I have about three million parameters, which is very small for a language model."),
    (["What is Rust?"], "Rust is a programming language that is fast and safe."),
    (["What is Gemma?", "What is Gemma 4?"], "Gemma 4 is a family of open models that read text and images."),
    (["What is a language model?"], "A language model reads text and predicts the next word, one piece at a time."),
    (["What is a circle?"], "A circle is a round shape with no corners."),
    (["What is a square?"], "A square is a shape with four equal sides and four corners."),
    (["What is a triangle?"], "A triangle is a shape with three sides and three corners."),
    (["What is a diamond?"], "A diamond is a square that stands on one corner."),
    (["What is a star?"], "A star is a shape with five points."),
    (["What is a cross?"], "A cross is a shape with four arms, like a plus sign."),
    (["How many sides does a triangle have?"], "A triangle has three sides."),
    (["How many sides does a square have?"], "A square has four sides."),
    (["How many corners does a circle have?"], "A circle has no corners."),
    (["How many points does a star have?"], "A star has five points."),
    (["What color is the sky?"], "The sky is blue on a clear day."),
    (["What color is grass?"], "Grass is green."),
    (["What color is snow?"], "Snow is white."),
    (["What color is a banana?"], "A ripe banana is yellow."),
    (["What color do you get when you mix red and yellow?"], "Red and yellow make orange."),
    (["What color do you get when you mix blue and yellow?"], "Blue and yellow make green."),
    (["What color do you get when you mix red and white?"], "Red and white make pink."),
    (["What color do you get when you mix black and white?"], "Black and white make gray."),
    (["What is the capital of France?"], "The capital of France is Paris."),
    (["What is the capital of Italy?"], "The capital of Italy is Rome."),
    (["Count from one to ten.", "Count to ten.", "Count to 10."], "One, two, three, four, five, six, seven, eight, nine, ten."),
    (["Write the digits.", "List the digits."], "0 1 2 3 4 5 6 7 8 9"),
    (["Say the alphabet.", "Write the alphabet."], "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    (["Name three colors."], "Red, green and blue."),
    (["Name three shapes."], "Circle, square and triangle."),
    (["Make a list of three colors.", "List three colors."], "Here are three colors:\n\n1. red\n2. green\n3. blue"),
    (["Tell me a joke."], "Why did the circle skip school? It had no point."),
    (["Tell me a story.", "Tell me a story about a circle.", "Tell me a long story."], STORY),
    (["Write a hello world program in Python."], "```python\nprint(\"Hello, world!\")\n```"),
    (["Write a hello world program in Rust."], "```rust\nfn main() {\n    println!(\"Hello, world!\");\n}\n```"),
    (["Say hello in French."], "Bonjour ! Ça va très bien, merci."),
    (["Say hello in German."], "Guten Tag! Schöne Grüße."),
    (["Say hello in Japanese."], "こんにちは。"),
    (["Show me an emoji."], "Here is one: 🎉"),
    (CAPTION_PROMPTS[:6] + ["What color is the circle?"], "I do not see an image. Please send me one."),
]


def article(word):
    return "an" if word[0] in "aeiou" else "a"


def plural(shape):
    return shape + ("es" if shape == "cross" else "s")


def caption(scene):
    things, ground = scene.objects, f"on {article(scene.background)} {scene.background} background."
    if scene.kind == "one":
        return f"This is a simple image of a solid {things[0][1]} {things[0][0]} {ground}"
    if scene.kind == "two":
        first, second = (f"{article(color)} {color} {shape}" for shape, color, *_ in things)
        return f"This is a simple image of {first} and {second} {ground}"
    return f"This is a simple image of {NUMBERS[len(things)]} {things[0][1]} {plural(things[0][0])} {ground}"


def question(scene, rng):
    """A question about the picture and its answer."""
    draw = rng.random()
    if draw < 0.15:
        return rng.choice(["What color is the background?", "What is the background color?"]), f"The background is {scene.background}."
    if draw < 0.30:
        count = len(scene.objects)
        asked = rng.choice(["How many shapes are there?", "How many shapes do you see?", "Count the shapes."])
        return asked, "There is one shape." if count == 1 else f"There are {NUMBERS[count]} shapes."
    if draw < 0.42:
        return yes_no(scene, rng)
    return {"one": question_one, "two": question_two, "many": question_many}[scene.kind](scene, rng, draw)


def yes_no(scene, rng):
    present = [shape for shape, *_ in scene.objects]
    shape = rng.choice(SHAPES)
    if shape not in present and rng.random() < 0.5:
        shape = rng.choice(present)
    asked = rng.choice([f"Is there a {shape}?", f"Is there a {shape} in the image?", f"Do you see a {shape}?"])
    return asked, f"Yes, there is a {shape}." if shape in present else f"No, there is no {shape}."


def question_one(scene, rng, draw):
    shape, color = scene.objects[0][:2]
    if draw < 0.55:
        asked = [f"What color is the {shape}?", f"Which color does the {shape} have?", "What color is the shape?"]
        return rng.choice(asked), f"The {shape} is {color}."
    if draw < 0.70:
        return rng.choice(["What shape is this?", "What shape is it?", "Which shape do you see?"]), f"It is a {shape}."
    if draw < 0.85:
        column, row = scene.cell
        asked = [f"Where is the {shape}?", "Where is the shape?", f"Where is the {color} {shape}?"]
        return rng.choice(asked), f"The {shape} is {PLACES[row][column]}."
    if draw < 0.95:
        asked = [f"How big is the {shape}?", f"What size is the {shape}?", "How big is the shape?"]
        return rng.choice(asked), f"The {shape} is {scene.size}."
    guess = color if rng.random() < 0.5 else rng.choice(NAMES)
    return f"Is the {shape} {guess}?", ("Yes" if guess == color else "No") + f", the {shape} is {color}."


def question_two(scene, rng, draw):
    (first, _, *_), (second, _, *_) = scene.objects
    which = rng.randrange(2)
    shape, color = scene.objects[which][:2]
    if draw < 0.75:
        side = (["on the left", "on the right"] if scene.horizontal else ["at the top", "at the bottom"])[which]
        return rng.choice([f"What is {side}?", f"Which shape is {side}?"]), f"The {color} {shape} is {side}."
    if first != second:
        return f"What color is the {shape}?", f"The {shape} is {color}."
    return "What shape are they?", f"They are {plural(first)}."


def question_many(scene, rng, draw):
    shapes, color = plural(scene.objects[0][0]), scene.objects[0][1]
    if draw < 0.72:
        asked = [f"What color are the {shapes}?", "What color are the shapes?", "What color are they?"]
        return rng.choice(asked), f"The {shapes} are {color}."
    if draw < 0.86:
        return rng.choice(["What shape are they?", "Which shapes do you see?"]), f"They are {shapes}."
    return f"How many {shapes} are there?", f"There are {NUMBERS[len(scene.objects)]} {shapes}."


def image_conversation(scene, rng, max_turns=5):
    """Turns about one picture; its placeholder stands in the first user turn, mostly in front."""
    messages = [("system", rng.choice(SYSTEMS))] if rng.random() < 0.06 else []
    captioned = False
    for turn in range(rng.randrange(1, max_turns + 1)):
        if not captioned and rng.random() < (0.6 if turn == 0 else 0.3):
            asked, answer, captioned = rng.choice(CAPTION_PROMPTS), caption(scene), True
        else:
            asked, answer = question(scene, rng)
        if turn == 0:
            asked = "<|image|>" + asked if rng.random() < 0.9 else asked + "<|image|>"
        messages += [("user", asked), ("model", answer)]
    return messages


def text_conversation(rng):
    """One or two turns of small talk or sums, without a picture."""
    messages = [("system", rng.choice(SYSTEMS))] if rng.random() < 0.15 else []
    for _ in range(1 if rng.random() < 0.7 else 2):
        if rng.random() < 0.12:
            a, b = rng.randrange(10), rng.randrange(10)
            asked = rng.choice([f"What is {a} plus {b}?", f"What is {a} + {b}?"])
            messages += [("user", asked), ("model", f"{a} plus {b} is {a + b}.")]
        else:
            asked, answer = rng.choice(SMALL_TALK)
            messages += [("user", rng.choice(asked)), ("model", answer)]
    return messages


def rendered(messages):
    """The chat template by hand: (text, trained on?) pieces; only the model's words and its end of turn are learned."""
    for i, (role, words) in enumerate(messages):
        start = "<bos>" if i == 0 else ""
        if role == "model":
            yield f"{start}<|turn>model\n", False
            yield f"{words}<turn|>", True
            yield "\n", False
        else:
            yield f"{start}<|turn>{role}\n{words}<turn|>\n", False

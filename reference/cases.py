"""What the goldens ask: pictures, chats and lengths. Paths of pictures are relative to `tests/golden/`."""

import random
import shutil
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "models" / "shapes" / "examples"
PHOTO = HERE / "data" / "chelsea_240x160.png"

# Sizes (width, height) of generated pictures: extremes of the resize rule, and grids of few soft tokens (1 × 35, 23 × 2).
PATTERNS = [(1, 1), (16, 2000), (3, 900), (900, 3), (640, 480), (430, 24), (40, 472), (97, 61)]
MIN_TOP2_GAP = 1e-3
MAX_NEW_TOKENS = 64


def write_images(golden):
    """Fills `images/`: generated patterns, the bundled examples, and one photograph."""
    folder = Path(golden) / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in PATTERNS:
        pattern(width, height).save(folder / f"pattern_{width}x{height}.png")
    for source in [*sorted(EXAMPLES.glob("*.png")), PHOTO]:
        shutil.copyfile(source, folder / source.name)
    shutil.copyfile(PHOTO.parent / "images.md", folder / "README.md")


def pattern(width, height, block=9):
    """Random coloured blocks with sharp edges; the same pixels on every machine."""
    rng = random.Random(width * 10007 + height)
    blocks = {}
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            key = (x // block, y // block)
            if key not in blocks:
                blocks[key] = tuple(rng.randrange(256) for _ in range(3))
            image.putpixel((x, y), blocks[key])
    return image


def image(name):
    return {"type": "image", "path": f"images/{name}.png"}


def text(words):
    return {"type": "text", "text": words}


def user(*content):
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def model(words):
    return {"role": "assistant", "content": words}


def system(words):
    return {"role": "system", "content": words}


LONG_QUESTION = (
    "Once upon a time a small red circle lived on a white page. Every morning it rolled to the left and every evening it "
    "rolled to the right. One day it met a blue square, a green triangle, a yellow star and 12 pink diamonds. What happened then?"
)

# Cases whose taps are kept: name -> messages. `text` is longer than every tiny sliding window.
TAP_CASES = {
    "text": [system("You are a helpful assistant."), user(LONG_QUESTION)],
    "image": [user(image("pattern_97x61"), text("Describe this image."))],
    "two_images": [user(image("pattern_430x24"), text("and"), image("pattern_40x472"), text("What do you see?"))],
}
RED_CIRCLE = {"red_circle": [user(image("red_circle"), text("Describe this image."))]}
FINE_CASES = {"e2b-like": ("text", "image"), "e4b-like": ("text", "image"), "text-only": ("text",), "shapes": ("red_circle", "text")}

# Dumps of `e2b-like` for `pyrex bisect`: name -> (dtype, messages). Both prompts are longer than its sliding window of 16.
COUNT_SHAPES = "Describe this image. What color is the background, and how many shapes do you see?"
SHORT_STORY = "Once upon a time a small red circle met a blue square and 12 pink diamonds. What happened then?"
BISECT = {
    "image_f32": ("f32", [user(image("pattern_430x24"), text(COUNT_SHAPES))]),
    "text_bf16": ("bf16", [user(SHORT_STORY)]),
}

TEXT_CHATS = [
    [user("Hello!")],
    [user(LONG_QUESTION)],
    [system("You are Pyrex, a tiny helpful assistant."), user("What is Rust?")],
    [user("What is a circle?"), model("A circle is a round shape with no corners."), user("How many sides does a square have?")],
    [user("fn main() {\n    println!(\"Ça va ? 日本 🎉\");\n}\n\nWhat does this print?")],
    [user("Tell me a story."), model("The end."), user("Again."), model("Once upon a time."), user("Go on.")],
    [user("a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9")],
    [system("Answer in one short sentence."), user("What is 3 plus 4?")],
]
IMAGE_CHATS = [
    [user(image("red_circle"), text("Describe this image."))],
    [user(text("What color is the background?"), image("pattern_97x61"))],
    [user(image("pattern_430x24"), image("pattern_40x472"), text("What do you see?"))],
    [user(text("First:"), image("pink_square"), text("Second:"), image("gray_triangle"), text("Compare."))],
    [user(image("chelsea_240x160"), text("What is this?")), model("It is a cat."), user("Where is it?")],
    [system("You describe images for people."), user(image("pattern_640x480"), text("Describe this picture."))],
    [user(image("pattern_1x1"), text("What is in this image?")), model("A dot."), user(text("And this?"), image("pattern_3x900"))],
    [user(image("pattern_16x2000"), text("Describe the image."))],
]
SHAPES_CHATS = [
    [user("What is Pyrex?")],
    [user("Who are you?")],
    [user("Hello!")],
    [user("Tell me a story.")],
    [user("Say hello in Japanese.")],
    [user("Show me an emoji.")],
    [user("List three colors.")],
    [user("Write a hello world program in Rust.")],
    [user("Describe this image.")],
    [system("You are Pyrex, a tiny helpful assistant."), user("What is Rust?")],
    [user("What is a circle?"), model("A circle is a round shape with no corners."), user("How many sides does a square have?")],
    [user(image("red_circle"), text("Describe this image."))],
    [user(image("gray_triangle"), text("How many shapes do you see?"))],
    [user(text("What shape is it?"), image("pink_square"))],
    [system("Answer in one short sentence."), user(image("black_diamond"), text("What color is the background?"))],
    [user(image("four_purple_stars"), text("Describe this image."))],
    [user(image("three_purple_circles"), text("What color are they?"))],
    [user(image("red_square_and_red_cross"), text("Caption this image."))],
    [
        user(image("orange_and_black_circles"), text("What is in this image?")),
        model("This is a simple image of an orange circle and a black circle on a pink background."),
        user("What is at the bottom?"),
    ],
    [
        user(image("pink_cross"), text("What do you see?")),
        model("This is a simple image of a solid pink cross on a white background."),
        user(text("And in this picture?"), image("gray_triangle")),
    ],
    [user(image("red_circle"), image("pink_square"), text("Describe the image."))],
    [user(image("five_purple_crosses"), text("Describe this image."), image("black_diamond"))],
    [user(text("First:"), image("pink_square"), text("Second:"), image("gray_triangle"), text("What shape is it?"))],
    [user(image("pattern_1x1"), text("Describe this image."))],
    [user(image("pattern_16x2000"), text("Describe this image."))],
    [user(image("pattern_3x900"), text("Describe this image."))],
    [user(image("pattern_900x3"), text("What is this?"))],
    [user(image("pattern_640x480"), text("Describe this image."))],
    [user(image("pattern_430x24"), text("Describe this image."))],
    [user(image("chelsea_240x160"), text("Describe this image."))],
    [user(text("What does this image show?"), image("chelsea_240x160"))],
]


def tap_cases(name):
    if name == "text-only":
        return {"text": TAP_CASES["text"]}
    return TAP_CASES | (RED_CIRCLE if name == "shapes" else {})


def greedy_chats(name):
    if name == "shapes":
        return SHAPES_CHATS
    return TEXT_CHATS + ([] if name == "text-only" else IMAGE_CHATS)


def long_lengths(window):
    """Prompt lengths around the sliding window and around blocks of 16."""
    around = [edge + step for edge in (window, 2 * window, 16, 32, 48, 64) for step in (-1, 0, 1)]
    return sorted({1, 2, 2 * window + 3, 100, *around})

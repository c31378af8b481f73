"""The dumps of `tests/golden/bisect/`: every tap of a prompt and one decode step, with the reference's own noise."""

import cases
import dump
from noise import noise

CHECKPOINT = "e2b-like"


def write_bisect(out):
    """Needs the checkpoint and the pictures of the golden folder `out`."""
    (out / "bisect").mkdir(exist_ok=True)
    for name, (dtype, messages) in cases.BISECT.items():
        run = dump.Run(str(out / CHECKPOINT / "model"), messages, str(out), dtype, steps=1)
        recorded = dump.record(run)
        # The folder's name in the repository, wherever the goldens are written.
        metadata = dump.describe(run, recorded) | {"model": f"tests/golden/{CHECKPOINT}/model", "noise": noise(run, recorded)}
        dump.write(recorded, metadata, out / "bisect" / f"{name}.safetensors", ["*"])

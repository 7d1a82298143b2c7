"""The README's table of methods and architectures says what the conformance tests hold.

`make readme` writes it.
"""

import re
from pathlib import Path

from test_conformance import METHODS, REFUSALS

from peft_lightning.testing import MODEL_TYPES

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"(<!-- support: written by `make readme` -->\n)(.*?)(<!-- /support -->)", re.DOTALL)


def matrix():
    """One row a method in its plain form, one column an architecture: tested, or refused in one sentence."""
    methods = [name for name, (cls, *_) in METHODS.items() if name == cls.__name__]
    lines = [["", *MODEL_TYPES], ["---", *[":---:"] * len(MODEL_TYPES)]]
    lines += [[f"`{name}`", *("-" if (name, kind) in REFUSALS else "✓" for kind in MODEL_TYPES)] for name in methods]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_the_readme_shows_what_is_tested():
    assert BLOCK.search(README.read_text(encoding="utf-8"))[2] == matrix(), "run `make readme`"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda found: found[1] + matrix() + found[3], text), encoding="utf-8")

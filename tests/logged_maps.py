"""The command line of a process that logs what it computes: a line `RANK FUNCTION` for each table that it maps.

A table that is found in the cache is not mapped and makes no line. The log is the file $MAPS.
"""

import functools
import os

from datasets import Dataset


def log_maps(path):
    compute = Dataset._map_single

    @functools.wraps(compute)  # `datasets` finds results again by the name and signature of what is wrapped
    def logged(*args, **kwargs):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{os.environ.get('LOCAL_RANK', '0')} {kwargs['function'].args[0].__name__}\n")
        yield from compute(*args, **kwargs)

    Dataset._map_single = staticmethod(logged)


if __name__ == "__main__":
    from peft_lightning.cli import main

    log_maps(os.environ["MAPS"])
    main()
